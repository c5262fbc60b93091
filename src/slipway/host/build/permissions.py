"""What an operator lets a source say of where its packages come from, and whether they are built."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

PYPI = "https://pypi.org/simple"

ARCHIVE = re.compile(r"\.(tar|tar\.gz|tgz|tar\.bz2|tar\.xz|zip)$", re.IGNORECASE)
VERSION_CONTROL = re.compile(r"^(git|hg|svn|bzr)(\+|:)|^git@")


class Refused(Exception):
    """A file of the source says what cannot be done as it is; the text names the file, the line and the remedy."""


class Allowed(NamedTuple):
    """What the operator lets a source say.

    Attributes:
        default: the address of the package index; empty for PyPI.
        more: the addresses of further ones.
        source_builds: whether packages may be built from source.
        installer: `uv` or `pip`.
    """

    default: str
    more: tuple[str, ...]
    source_builds: bool
    installer: str

    @classmethod
    def of(cls, environment: Mapping[str, str], source_builds: bool, installer: str) -> Allowed:
        """Return what the installer's `environment` lets it use."""
        more = environment.get("UV_INDEX") or environment.get("PIP_EXTRA_INDEX_URL") or ""
        return cls(
            str(environment.get("UV_DEFAULT_INDEX") or environment.get("PIP_INDEX_URL") or ""),
            tuple(str(more).split()),
            source_builds,
            installer,
        )

    def check_option(self, option: str, value: str, where: str) -> None:
        """Refuse an option that is the operator's to set, unless the operator said the same.

        Args:
            option: its long name.
            value: what it is set to; empty where it takes none.
            where: what sets it.

        Raises:
            Refused: when the operator did not.
        """
        if option in ("--index-url", "--pypi-url") and plain(value) != plain(self.default or PYPI):
            raise Refused(
                f"{where} takes packages from {shown(value)}: set python_index_url to that, if you trust it; the file alone "
                "does not decide it."
            )
        if option == "--extra-index-url":
            known = {plain(address) for address in (self.default or PYPI, *self.more)}
            if plain(value) not in known:
                raise Refused(
                    f"{where} takes packages from {shown(value)}, too: add that to python_extra_index_urls, if you trust it; "
                    "the file alone does not decide that."
                )
        if option == "--find-links":
            raise Refused(
                f"{where} takes packages from {shown(value)}: provide the wheels in app_wheelhouse, or in a folder of the source."
            )
        if option == "--trusted-host":
            raise Refused(
                f"{where} trusts {value} without a certificate: remove that, and let the hosts trust the certificate of the "
                "index that python_index_url or python_extra_index_urls names."
            )
        builds = (option == "--no-binary" and value not in (":none:", "")) or (option == "--only-binary" and value == ":none:")
        if builds and not self.source_builds:
            raise Refused(
                f"{where} builds packages from source ({option} {value}), which runs their code: set app_source_builds: true "
                "to allow it, or remove that."
            )
        if option == "--pre" and self.installer == "uv":
            raise Refused(f"{where} allows pre-releases of every package (--pre): pin those you mean, as in fastapi==1.0rc1.")

    def check_place(self, place: str, inside: Path | None, where: str, name: str) -> None:
        """Refuse a place that no host can, or may, install from.

        Args:
            place: an address or a path.
            inside: the path in the source that it stands for, which need not exist; None for a place elsewhere.
            where: what names the place.
            name: what is installed from there; empty if nobody knows.

        Raises:
            Refused: when it is such a place.
        """
        what = f"{where} takes {name or 'a package'} from {shown(place)}"
        path = urlsplit(place).path if "://" in place else place
        if place.startswith(("file:", "/", "~")):
            raise Refused(
                f"{what}, a local path: put it into the source and refer to it as ./{os.path.basename(path.rstrip('/'))}, "
                "or provide a wheel in app_wheelhouse."
            )
        if VERSION_CONTROL.match(place) or ARCHIVE.search(path):
            if not self.source_builds:
                raise Refused(
                    f"{what}, where it would have to be built, which runs its code: pin a released version, bring its wheel "
                    "along in app_wheelhouse, or set app_source_builds: true to build it."
                )
            return
        if place.startswith("http://") and "sha256=" not in place:
            raise Refused(
                f"{what}, which anyone on the network path could change: use an https address, or add #sha256=<digest>."
            )
        if "://" not in place:
            if inside is None:
                raise Refused(f"{what}, which is outside the source: set app_source to the folder that contains both.")
            if not inside.exists():
                raise Refused(f"{what}, and the source has no such file or folder.")


def plain(address: str) -> str:
    """Return an address as it is compared: without credentials, and without a slash at its end."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}{parts.path.rstrip('/')}"


def shown(address: str) -> str:
    """Return an address as it may be shown."""
    return re.sub(r"//[^/@\s]+@", "//", address)
