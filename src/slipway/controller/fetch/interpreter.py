"""The Python that a source asks for, the one that app_python asks for, and the one that it would run with by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from slipway.controller import interpreter as interpreters
from slipway.controller.fetch.error import FetchError
from slipway.controller.uv import known
from slipway.host.python_ends import ENDS

Demands = list[dict[str, Any]]

# What stands for a version of Python in app_image_base, and the one that it is if the source does not mind.
VERSION, USUAL = "{python}", "3.13"


@dataclass(frozen=True)
class Choice:
    """What the operator set.

    Attributes:
        python: the version, such as `3.14`, `3.14t` or `3.12.7`; empty for one that the source allows.
        minimum: the oldest that is accepted.
        installer: uv or pip.
        uv: the version of uv on hosts.
        downloads: where that gets a Python; empty for its own place.
    """

    python: str
    minimum: str
    installer: str
    uv: str
    downloads: str

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Choice:
        """Return what a task's `arguments` ask for."""
        text = {name: str(arguments.get(name) or "") for name in ("python", "minimum", "installer", "uv_version", "downloads")}
        return cls(*text.values())

    @property
    def version(self) -> str:
        """The version alone."""
        return self.python.rstrip("t")

    @property
    def free_threaded(self) -> bool:
        """Whether it is one without the global interpreter lock."""
        return self.python.endswith("t")

    def demands(self, demands: Iterable[dict[str, Any]]) -> Demands:
        """Return what counts of what a source asks for, and what is asked for here.

        A .python-version says what developers use: app_python takes its place.

        Raises:
            FetchError: when app_python is another one than the source allows; names both.
        """
        counted = [each for each in demands if not (self.python and interpreters.is_pin(each))]
        if self.python:
            for each in interpreters.unmet(counted, self.version):
                raise FetchError(
                    f"app_python is {self.python}, and {each['file']} of the source says {each['declared']}: set app_python to a "
                    "version that it allows, or leave it empty. Nothing was built."
                )
            exactly = f"=={self.version}" + ("" if self.version.count(".") == 2 else ".*")
            counted = [interpreters.demand("app_python", self.python, exactly), *counted]
        if self.minimum:
            counted.append(interpreters.demand("python_minimum", f"{self.minimum} or newer", f">={self.minimum}"))
        return counted


def for_host(demands: Demands, choice: Choice, host: str, version: str, interpreter: str) -> str:
    """Return what uv is asked for on a host; empty where its own Python will do.

    Args:
        demands: what the source asks for.
        choice: what the operator set.
        host: the host's name.
        version: that of its Python; empty if it is not known yet.
        interpreter: the path of that.

    Raises:
        FetchError: when uv has none, or pip is to be used; names both Pythons, and what to do.
    """
    counted = choice.demands(demands)
    failed = interpreters.unmet(counted, version) if version else []
    if not choice.free_threaded and not failed and (version or not choice.python):
        return ""
    request = interpreters.request(interpreters.settled(counted)) + ("+freethreaded" if choice.free_threaded else "")
    first = failed[0] if failed else counted[0]
    pin = ", or leave that file out by app_exclude where another will do" if interpreters.is_pin(first) else ""
    has = f"{first['file']} says {first['declared']}, and {interpreter} there is Python {version or 'not installed yet'}"
    reason = f"The app requires a different Python from that of {host}: {has}."
    if choice.installer == "pip":
        raise FetchError(
            f"{reason} pip cannot install one. Nothing was built: set python_installer: uv, install such a Python there and set "
            f"python_interpreter to it, or set app_runtime: container{pin}."
        )
    if not known(request, choice.uv, choice.downloads):
        others = "".join(f", {each['file']} {each['declared']}" for each in counted if each != first)
        raise FetchError(
            f"{reason} uv {choice.uv} has no such Python either{f' (beside that: {others[2:]})' if others else ''}. Nothing was "
            f"built: correct that{pin}, or set python_uv_version to a newer uv."
        )
    return request


def for_image(demands: Demands, choice: Choice, base: str) -> str:
    """Return the image that the app's own is made from.

    Args:
        demands: what the source asks for.
        choice: what the operator set.
        base: app_image_base.

    Raises:
        FetchError: when it has another Python than is asked for, or there is none; names what to do.
    """
    counted = choice.demands(demands)
    if VERSION in base:
        newest = sorted(ENDS, key=lambda each: int(each.split(".")[1]), reverse=True)
        choices = [choice.version] if choice.python else [USUAL, *newest]
        found = next((each for each in choices if not interpreters.unmet(counted, each)), "")
        if not found:
            declared = " and ".join(f"{each['file']} says {each['declared']}" for each in counted)
            raise FetchError(
                f"No image with a stable Python meets what the app requires: {declared}. Nothing was built: correct that, or set "
                "app_image_base to an image that does."
            )
        return base.replace(VERSION, found)
    version = interpreters.of_image(base)
    for each in interpreters.unmet(counted, version) if version else []:
        pin = ", or leave that file out by app_exclude where another will do" if interpreters.is_pin(each) else ""
        raise FetchError(
            f"The app requires a different Python from that of its image: {each['file']} says {each['declared']}, and {base} "
            f"(app_image_base) has Python {version}. Nothing was built: set app_image_base to an image with such a Python{pin}."
        )
    return base
