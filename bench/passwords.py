"""Measure what an ordinary client waits for an answer while somebody guesses the monitoring's password, against when alone."""

from __future__ import annotations

from bench.capacity import PRIVATE, arguments_of, compare

# The guesses last ten seconds, and the client is asked for nine of them.
SECONDS = 10
SAMPLE = ["--connections=4", "--seconds=4", "--path=/"]


def main() -> int:
    """Measure and print."""
    parser = arguments_of("passwords", __doc__ or "")
    parser.add_argument(
        "--guesses", type=int, default=1000, help="guesses a second, a third of them of 511 characters (%(default)s)"
    )
    arguments = parser.parse_args()
    wanted = [f"--guess={PRIVATE}", f"--rate={arguments.guesses}", f"--seconds={SECONDS}"]
    return compare("passwords", {"guesses": wanted}, arguments.rounds, [*SAMPLE, f"--rate={arguments.rate}"])


if __name__ == "__main__":
    raise SystemExit(main())
