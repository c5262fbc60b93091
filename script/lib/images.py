"""Make the container images that stand for bare servers in the demo and in the tests.

`script/image NAME` prints the reference of the image and builds it first when it is absent. A reference ends in
a digest over all that goes in (recipe files, base, the machine's extra CA certificates), so an image is
built once and never out of date.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from podman_setup import PodmanError, as_root, last_lines, podman, prepare

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "molecule" / "images"
CACHE = Path.home() / ".cache" / "slipway"
EXTRA_CAS = Path("/usr/local/share/ca-certificates")
DEBIAN_MIRROR = "http://deb.debian.org/debian"
DEBIAN_SECURITY_MIRROR = "http://deb.debian.org/debian-security"
DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

REGISTRY_ANSWERS_WITHIN = 15  # seconds
PULL_WITHIN = 900  # seconds
BUILD_WITHIN = 1800  # seconds


class ImageError(Exception):
    """Something the caller can mend; the message says what and how."""


@dataclass(frozen=True)
class Image:
    """How one image is made.

    `public` is asked for first and gets the recipe in `folder`. Where no registry answers, `suite` is bootstrapped
    from the Debian archive and gets the same recipe, or else the image `parent` gets the recipe in `stand_in`.
    """

    folder: str
    public: str = ""
    suite: str = ""
    parent: str = ""
    stand_in: str = ""


IMAGES = {
    "debian12": Image("debian", public="docker.io/library/debian:12", suite="bookworm"),
    "debian13": Image("debian", public="docker.io/library/debian:13", suite="trixie"),
    "ubuntu2404": Image(
        "debian",
        public="docker.io/library/ubuntu:24.04",
        parent="debian13",
        stand_in="ubuntu2404-standin",
    ),
    "centos9": Image("centos9", public="quay.io/centos/centos:stream9", parent="debian12", stand_in="centos9-standin"),
    "python": Image("python", public="docker.io/library/python:3.13-slim", parent="debian13", stand_in="python-standin"),
    "traefik": Image("traefik", public="docker.io/library/traefik:v3.6", parent="python", stand_in="traefik-standin"),
    "acme": Image("acme", parent="debian13", stand_in="acme"),
}


def say(sentence: str) -> None:
    """Tell the person at the terminal; standard output belongs to the reference alone."""
    print(sentence, file=sys.stderr, flush=True)


def find(name: str) -> Image:
    """Look an image up by name.

    Raises:
        ImageError: no image has that name.
    """
    if name not in IMAGES:
        raise ImageError(f"there is no image named {name!r}; choose one of: {', '.join(IMAGES)}")
    return IMAGES[name]


def digest(parts: Iterable[tuple[str, bytes]]) -> str:
    """Return 12 hexadecimal digits that change when any label or content changes."""
    total = hashlib.sha256()
    for label, content in parts:
        for piece in (label.encode(), content):
            total.update(len(piece).to_bytes(8, "big") + piece)
    return total.hexdigest()[:12]


def extra_cas(folder: Path = EXTRA_CAS) -> list[Path]:
    """List the CA certificates that this machine trusts beyond those of its distribution."""
    return sorted(folder.rglob("*.crt")) if folder.is_dir() else []


def reference(name: str, base: str = "", recipes: Path = RECIPES, cas: Sequence[Path] | None = None) -> str:
    """Return the reference that the image called `name` has, or will have once it is built.

    Args:
        name: one of `IMAGES`.
        base: the public image that was asked for; empty for the usual choice.
        recipes: the directory that holds the recipe folders.
        cas: the certificates to bake in; by default the machine's own.

    Raises:
        ImageError: no image has that name.
    """
    image = find(name)
    trusted = extra_cas() if cas is None else cas
    parts = [("base", (base or f"{image.public} {image.suite}").encode())]
    if image.parent and not base:
        parts.append(("parent", reference(image.parent, "", recipes, trusted).encode()))
    for folder in sorted({image.folder, image.stand_in} - {""}):
        for path in sorted(path for path in (recipes / folder).rglob("*") if path.is_file()):
            parts.append((f"{path.relative_to(recipes)} {path.stat().st_mode & 0o111:o}", path.read_bytes()))
    parts.extend((f"ca {path.name}", path.read_bytes()) for path in trusted)
    return f"localhost/slipway-{name}:{digest(parts)}"


def debian_mirrors(sources: str) -> tuple[str, str]:
    """Pick the mirror of Debian and that of its security updates out of the text of apt's source files."""
    lines = [line for line in sources.splitlines() if not line.lstrip().startswith("#")]
    addresses = [word.rstrip("/") for line in lines for word in re.findall(r"\bhttps?://\S+", line)]
    main = next((word for word in addresses if word.endswith("/debian")), DEBIAN_MIRROR)
    security = next((word for word in addresses if word.endswith("/debian-security")), DEBIAN_SECURITY_MIRROR)
    return main, security


def run(command: Sequence[str], log: Path, within: float) -> None:
    """Run `command` and append its output to `log`.

    Raises:
        ImageError: it failed or took longer than `within` seconds; the message ends with its last lines.
    """
    with log.open("a+", encoding="utf-8", errors="replace") as output:
        output.write(f"+ {' '.join(command)}\n")
        output.flush()
        start = output.tell()
        outcome = "took too long"
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = subprocess.run(command, stdout=output, stderr=output, timeout=within, check=False).returncode
            if code == 0:
                return
            outcome = f"ended with code {code}"
        output.seek(start)
        ending = last_lines(output.read(), 15)
    raise ImageError(f"`{command[0]} {command[1]}` {outcome}; all of its output is in {log}; it ends:\n{ending}")


def pull(public: str, must: bool) -> bool:
    """Fetch a public image and say whether it is here now.

    Raises:
        ImageError: it `must` be fetched and is not.
    """
    if podman("image", "exists", public).returncode == 0:
        return True
    # The manifest is small: it tells a registry out of reach from a slow download.
    answer = podman("manifest", "inspect", public, within=REGISTRY_ANSWERS_WITHIN)
    if answer.returncode == 0 or must:
        answer = podman("pull", "--quiet", public, within=PULL_WITHIN)
    if answer.returncode != 0 and must:
        reason = last_lines(answer.stderr, 1)
        raise ImageError(f"cannot pull {public}: {reason}; name another image, or leave --base out")
    return answer.returncode == 0


def bootstrap(suite: str, log: Path) -> str:
    """Make a Debian base image from the Debian archive and return its reference.

    Raises:
        ImageError: mmdebstrap cannot be installed or failed.
    """
    if not shutil.which("mmdebstrap") or not Path(DEBIAN_KEYRING).exists():
        needed = ["apt-get", "install", "-y", "--no-install-recommends", "mmdebstrap", "debian-archive-keyring"]
        say(f"installing mmdebstrap: {' '.join(as_root(needed))}")
        try:
            run(as_root(needed), log, within=300)
        except (ImageError, FileNotFoundError) as error:
            raise ImageError(f"mmdebstrap is needed here; run: sudo {' '.join(needed)}\n{error}") from error
    folder = Path("/etc/apt")
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    kinds = (".list", ".sources")
    texts = [path.read_text(encoding="utf-8") for path in files if path.suffix in kinds and path.is_file()]
    main, security = debian_mirrors("\n".join(texts))
    pockets = [(main, suite), (main, f"{suite}-updates"), (security, f"{suite}-security")]
    packages = (RECIPES / "debian" / "packages").read_text(encoding="utf-8").split()
    base = f"localhost/slipway-bootstrap:{suite}"
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder_name:
        archive = f"{folder_name}/root.tar"
        command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}"]
        command += [f"--dpkgopt={RECIPES}/debian/dpkg.cfg", suite, archive]
        command += [f"deb [signed-by={DEBIAN_KEYRING}] {mirror} {pocket} main" for mirror, pocket in pockets]
        run(command, log, BUILD_WITHIN)
        run(["podman", "import", "--quiet", archive, base], log, BUILD_WITHIN)
    return base


def build(name: str, base: str, target: str) -> None:
    """Build the image called `name` as `target`, on the public image `base` or on the best base in reach.

    Raises:
        ImageError: a step failed.
    """
    image = find(name)
    log = CACHE / f"{name}.log"
    log.write_text("", encoding="utf-8")
    say(f"{name}: {prepare()}")
    folder, source = image.folder, base or image.public
    if not source or not pull(source, must=bool(base)):
        if source:
            say(f"{name}: no registry answers for {source}")
        if image.suite:
            say(f"{name}: bootstrapping {image.suite} from the Debian archive")
            source = bootstrap(image.suite, log)
        else:
            folder, source = image.stand_in, ensure(image.parent)
    say(f"{name}: building molecule/images/{folder} on {source}")
    with tempfile.TemporaryDirectory(prefix="slipway-") as context:
        shutil.copytree(RECIPES / folder, context, dirs_exist_ok=True)
        (Path(context) / "cas").mkdir()
        for path in extra_cas():
            shutil.copy(path, Path(context) / "cas" / "-".join(path.relative_to(EXTRA_CAS).parts))
        command = ["podman", "build", "--layers=false", f"--build-arg=BASE={source}", f"--tag={target}"]
        command += [f"--label=slipway.base={source}", f"--label=slipway.asked={base or 'auto'}", context]
        run(command, log, BUILD_WITHIN)
    if source.startswith("localhost/slipway-bootstrap:"):
        podman("rmi", source)


def remove_outdated(name: str, base: str, target: str) -> None:
    """Remove the images that `target` replaces; podman keeps those that a container uses."""
    same = [f"--filter=reference=localhost/slipway-{name}", f"--filter=label=slipway.asked={base or 'auto'}"]
    for listed in podman("images", "--format={{.Repository}}:{{.Tag}}", *same).stdout.split():
        if listed != target:
            podman("rmi", listed)


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Let one process at a time build the image called `name`."""
    with (CACHE / f"{name}.lock").open("w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: another process builds it; waiting")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def ensure(name: str, base: str = "") -> str:
    """Return the reference of the image called `name`, built first when it is absent.

    Raises:
        ImageError: no image has that name, or its build failed.
    """
    target = reference(name, base)
    if podman("image", "exists", target).returncode == 0:
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with lock(name):
        if podman("image", "exists", target).returncode == 0:
            return target
        started = time.monotonic()
        build(name, base, target)
        say(f"{name}: ready after {time.monotonic() - started:.0f} s")
        remove_outdated(name, base, target)
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="script/image", description="Build the image of a test host; print its name.")
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"one of: {', '.join(IMAGES)}")
    parser.add_argument("--base", default="", metavar="REF", help="build on this public image and no other")
    parser.add_argument("--list", action="store_true", help="print the names and do nothing else")
    parser.add_argument("--prepare", action="store_true", help="make podman able to start containers on this machine")
    options = parser.parse_args(arguments)
    try:
        if options.list:
            print("\n".join(IMAGES))
        elif options.prepare:
            say(prepare())
        elif not options.name:
            parser.error(f"name an image: {', '.join(IMAGES)}")
        elif options.base and not find(options.name).public:
            raise ImageError(f"{options.name} is always built on {find(options.name).parent}; leave --base out")
        else:
            print(ensure(options.name, options.base))
    except (ImageError, PodmanError) as error:
        say(f"script/image: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
