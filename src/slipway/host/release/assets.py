"""Files of front ends whose names have a hash of their content: Nginx serves them for a day longer than their release is live."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slipway.host.build.builder import reclaim_ownership
from slipway.host.build.engine import Engine
from slipway.host.build.shared_image import drop_links
from slipway.host.errors import ReleaseError
from slipway.host.files import remove, write
from slipway.host.release.context import Context
from slipway.host.release.record import image_of
from slipway.runtime.frontends import AUTO

# How long, in seconds, a file outlives the release that has it: a page that is open then may ask for it.
KEEP_SECONDS = 86400

# What may be a hash at the end of a name: Vite's, Rollup's and esbuild's 8 characters, or webpack's and Parcel's hex digits.
HASH = re.compile(r"[.-]([A-Za-z0-9_-]{8}|[0-9a-f]{9,64})(\.[A-Za-z0-9]{1,10}){1,3}")
# A part of a name as people write it: a word or a number.
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")


def is_hashed(name: str) -> bool:
    """Say whether a file's name has a hash. What may as well be words and numbers is none: nobody asks again for a year."""
    found = HASH.search(name[1:])
    if not found or found.end() != len(name) - 1 or found[1].isdigit():
        return False
    parts = len(WORDS.findall(found[1]))
    return parts >= 4 or (parts == 3 and bool(re.fullmatch(r"(?=.*[0-9])([0-9a-f]+|[A-Z0-9]+)", found[1])))


def place(context: Context, number: int, found: Mapping[str, str]) -> dict[str, str]:
    """Return where the front ends of release `number` lie on this host, by the paths that they are served below.

    Those of an image are copied out of it. For app_frontend, Nginx finds the folder as `frontend` in the release's directory.

    Args:
        context: the step, and its host.
        number: the release.
        found: the same, as the app says.

    Raises:
        ReleaseError: when the engine fails.
    """
    release = context.layout.release(number)
    build = (release / "build").resolve()
    image = image_of(context, build.name)
    places: dict[str, str] = {}
    for count, (path, folder) in enumerate(sorted(found.items())):
        lies = Path(folder).resolve()
        if image:
            lies = release / f"frontend-{count}"
            remove(lies)
            if not Engine(image["engine"]).take_out(image["image"], folder, lies):
                continue
            drop_links(lies)
            reclaim_ownership(lies)
        elif not {build, (build / ".venv").resolve()} & {lies, *lies.parents}:
            continue  # what root may link to is what it has built
        places[path] = str(lies)
    if context.arguments["runtime"]["frontend"] != AUTO and places:
        (release / "frontend").symlink_to(os.path.relpath(places[""], release))
    return places


def hashed(places: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Yield the path of each file of front ends whose name has a hash, as clients ask for it, and the file."""
    for path, lies in places.items():
        for folder, _, names in os.walk(lies):
            for name in filter(is_hashed, names):
                file = Path(folder, name)
                if file.is_file() and not file.is_symlink():
                    yield f"{path}/{os.path.relpath(file, lies)}", file


def publish(context: Context, number: int) -> None:
    """Have Nginx serve the hashed files of release `number`, beside those of other releases.

    The app serves what cannot be published, so that nothing of this is a reason to fail.
    """
    state = _state(context)
    for path, file in hashed(context.layout.record(number).get("frontend") or {}):
        target = Path(f"{context.layout.home}/assets{path}")
        try:
            if path in state["plain"]:
                continue
            if target.exists():
                if not _same(file, target):  # a name that stays while its content changes has no hash
                    state["plain"].append(path)
                    target.unlink()
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(file, target)
        except OSError as error:
            context.warnings.append(f"Nginx cannot serve {path}, so the app serves it: {error.strerror}.")
    _write(context, state)


def retire(context: Context, live: int, now: float) -> None:
    """Remove hashed files that have not been in the live release for a day, or all if they are not Nginx's to serve any more.

    Args:
        context: the step, and its host.
        live: the live release.
        now: the time, in seconds since 1970.
    """
    state, root = _state(context), context.layout.home / "assets"
    used = {path for path, _ in hashed(context.layout.record(live).get("frontend") or {})}
    left: dict[str, float] = {}
    keep = KEEP_SECONDS if context.arguments["runtime"]["frontend"] else -1.0
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            file = Path(folder, name)
            path = f"/{os.path.relpath(file, root)}"
            if path in used:
                continue
            left[path] = min(now, state["left"].get(path, now))
            if now - left[path] > keep:
                with contextlib.suppress(OSError):  # it is tried again at the next release
                    file.unlink()
                    del left[path]
        if Path(folder) != root:
            with contextlib.suppress(OSError):  # it is not empty
                os.rmdir(folder)
    _write(context, {**state, "left": left})


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except FileExistsError:
        raise
    except OSError:  # on another file system
        partial = target.with_name(f".{target.name}.partial")
        shutil.copyfile(file, partial)
        partial.chmod(0o644)
        partial.replace(target)


def _same(one: Path, other: Path) -> bool:
    return one.samefile(other) or (one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes())


def _state(context: Context) -> dict[str, Any]:
    """Return when each file left the live release, in seconds since 1970, and the paths that only look as if they had a hash."""
    try:
        state: dict[str, Any] = json.loads((context.layout.home / "assets.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        state = {}
    return {"left": state.get("left", {}), "plain": state.get("plain", [])}


def _write(context: Context, state: Mapping[str, Any]) -> None:
    if state == _state(context):
        return
    try:
        write(context.layout.home / "assets.json", json.dumps(state, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        context.warnings.append(f"{context.layout.home / 'assets.json'} cannot be written: {error.strerror}.")


def read_frontends(line: str) -> dict[str, str]:
    """Return the folders by their paths that an app's check has printed.

    Raises:
        ReleaseError: when it is not what that prints.
    """
    try:
        found = json.loads(line)
        if not all(re.fullmatch(r"(/[^/.][^/]*)*", path) and os.path.isabs(folder) for path, folder in found.items()):
            raise ValueError
    except (ValueError, AttributeError, TypeError) as error:
        raise ReleaseError(f"the app printed what its check prints about front ends: {line}") from error
    return dict(found)
