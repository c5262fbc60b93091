"""Pack a source into an archive that depends on nothing but its content."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

from slipway.controller.fetch.cache import sweep
from slipway.controller.fetch.error import FetchError

# What a recipe of ours finds beside the source: none of the source's own takes its place.
BESIDE = ".slipway"


def files_below(root: Path, exclude: list[str]) -> Iterator[Path]:
    """Yield the files and links below `root` in a fixed order, without those whose name fits a pattern of `exclude`."""
    for folder, folders, names in os.walk(root):
        linked = [name for name in folders if Path(folder, name).is_symlink()]
        folders[:] = sorted(
            name for name in folders if name not in linked and not any(fnmatch(name, pattern) for pattern in exclude)
        )
        for name in sorted([*names, *linked]):
            if not any(fnmatch(name, pattern) for pattern in exclude):
                yield Path(folder, name)


def leads_out(path: Path, root: Path) -> bool:
    """Say whether the link `path` leads out of `root`: by its words, or by the links that it passes through."""
    target = os.readlink(path)
    inside = os.path.normpath(os.path.join(os.path.dirname(os.path.relpath(path, root)), target))
    if os.path.isabs(target) or inside == ".." or inside.startswith("../"):
        return True
    end, top = os.path.realpath(path), os.path.realpath(root)
    return end != top and not end.startswith(f"{top}/")


def check_links(root: Path, exclude: list[str]) -> None:
    """Refuse links that lead out of `root`: a build could not follow them, and what follows them would show what is there.

    Raises:
        FetchError: when there is one.
    """
    for path in files_below(root, exclude):
        if path.is_symlink() and leads_out(path, root):
            raise FetchError(
                f"{path} is a link that points outside the source (to {os.readlink(path)}): a build could not follow it. "
                f"Copy its target into the source, or add {path.name} to app_exclude."
            )


def pack(
    root: Path,
    exclude: list[str],
    directory: Path,
    files: Iterable[Path] | None = None,
    replaced: Mapping[str, str] | None = None,
) -> tuple[str, Path]:
    """Pack `files`, or all below `root`, into an archive in `directory` that depends on nothing but their content.

    Args:
        root: the source.
        exclude: patterns of names that are left out.
        directory: where the archive goes.
        files: what is packed; None for all.
        replaced: files, from `root`, with the text that is packed in place of theirs; they need not be there.

    Returns:
        The digest of paths, contents and executable bits (40 hex digits), and the archive's path.

    Raises:
        FetchError: when a link leads out of `root`, or a file is neither a file nor a link.
    """
    texts = {root / name: text for name, text in (replaced or {}).items()}
    paths = list(files_below(root, [*exclude, BESIDE]) if files is None else files)
    digest = hashlib.sha256()
    partial = directory / f".{os.getpid()}.partial"
    try:
        with tarfile.open(partial, mode="w:gz", compresslevel=3) as tar:
            for path in [*paths, *(path for path in texts if path not in paths)]:
                entry = tarfile.TarInfo(str(path.relative_to(root)))
                content = b""
                if path not in texts and path.is_symlink():
                    entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
                    if leads_out(path, root):
                        raise FetchError(f"{path} is a link that points outside {root}: add {path.name} to app_exclude.")
                    body = os.fsencode(entry.linkname)
                elif path in texts or path.is_file():
                    # Read once: what is digested is what is packed, even if somebody saves the file meanwhile.
                    content = texts[path].encode("utf-8", "surrogateescape") if path in texts else path.read_bytes()
                    entry.size, entry.mode = len(content), 0o755 if path.is_file() and path.stat().st_mode & 0o100 else 0o644
                    body = hashlib.sha256(content).digest()
                else:
                    raise FetchError(f"{path} is neither a file nor a link; add its name to app_exclude.")
                digest.update(b"\0".join([os.fsencode(entry.name), entry.type, str(entry.mode).encode(), body]) + b"\0")
                tar.addfile(entry, io.BytesIO(content))
        name = digest.hexdigest()[:40]
        archive = directory / f"{name}.tar.gz"
        os.replace(partial, archive)
    finally:
        partial.unlink(missing_ok=True)
    archive.touch()
    sweep([*directory.glob("*.tar.gz"), *directory.glob(".*.partial")])
    return name, archive
