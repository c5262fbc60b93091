"""A release that failed: it is stopped, the reason is recorded, and the health of the live release is checked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from slipway.host.errors import ReleaseError
from slipway.host.files import remove
from slipway.host.logs import ends
from slipway.host.process import masked
from slipway.host.release.context import Context
from slipway.host.release.gate import answers
from slipway.host.release.processes import end
from slipway.host.release.record import remember


def stop(context: Context, number: int) -> None:
    """Stop release `number` and forget its program. Its processes may end what they are at.

    Raises:
        ReleaseError: when Supervisor does not answer.
    """
    end(context, [program for program in context.supervisor.programs() if program.release == number])
    context.supervisor.drop(number)
    context.container(number, "--remove")
    for socket in context.layout.runtime.glob(f"{number}.*"):  # not every server takes it away
        remove(socket)


@contextlib.contextmanager
def recording_failure(context: Context, number: int, old: int | None) -> Iterator[None]:
    """Turn an error into a failure of release `number`: stop it, record the reason, and check the health of `old`.

    Raises:
        ReleaseError: for any error; says what failed and what serves.
    """
    try:
        yield
    except Exception as error:
        message = str(error) if isinstance(error, (ReleaseError, OSError)) else f"{type(error).__name__}: {error}"
        reason = masked(message, context.secrets)
        with contextlib.suppress(ReleaseError):
            if number != old:
                stop(context, number)
        if context.layout.release(number).is_dir():
            facts = {"outcome": "failed", "reason": reason.splitlines()[0]}
            with contextlib.suppress(OSError):  # on a full disk the reason that is raised below must do
                if context.layout.record(number).get("outcome") in ("started", "prepared"):
                    remember(context, number, **facts)
                else:  # one that was good once stays so
                    context.layout.note({"release": number, "who": context.who, **facts})
        if old is None:
            serving = "Nothing was live before."
        elif answers(context, old):
            serving = f"Release {old} still serves."
        else:
            places = [place for place, _ in ends(context.layout, context.arguments["name"], old, 1)] or [
                str(context.layout.log(old))
            ]
            serving = f"Release {old}, which was live before, is unhealthy: see {places[0]}."
        raise ReleaseError(f"Release {number} failed: {reason}\n{serving}") from error
