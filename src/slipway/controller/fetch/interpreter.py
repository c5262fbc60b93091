"""The Python that a source asks for, compared with the one that it would run with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from slipway.controller import interpreter as interpreters
from slipway.controller.fetch.error import FetchError


def check_interpreter(demands: Iterable[dict[str, Any]], host: str, version: str, interpreter: str, base: str) -> None:
    """Refuse a source that asks for another Python than it would run with.

    Args:
        demands: what it asks for.
        host: the host's name.
        version: that of the Python; empty if it is not known yet.
        interpreter: the host's Python.
        base: the image that the app's own is made from; empty if it runs in none.

    Raises:
        FetchError: when it does; names the host, both Pythons, and what to do.
    """
    for each in interpreters.unmet(demands, version) if version else []:
        pin = ", or leave that file out by app_exclude where another will do" if ".python-version" in each["file"] else ""
        if base:
            has = f"{base} (app_image_base) has Python {version}"
            remedy = "name an image with such a Python in app_image_base"
        else:
            has = f"{interpreter} there is Python {version}"
            remedy = (
                "install such a Python there and name it in python_interpreter, or set app_runtime: container, with an "
                "app_image_base that has it"
            )
        raise FetchError(
            f"The app asks for another Python than {host} would run it with: {each['file']} says {each['declared']}, and {has}. "
            f"Nothing was built: {remedy}{pin}."
        )
