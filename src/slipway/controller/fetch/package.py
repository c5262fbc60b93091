"""A package or a wheel as a source: one requirements file, and the wheel beside it."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

from slipway.controller import interpreter as interpreters
from slipway.controller.fetch.archive import DAMAGED
from slipway.controller.fetch.error import FetchError
from slipway.controller.fetch.kind import shown
from slipway.host.build.archive import sha256


def stand_in(source: str, requirement: str, scratch: Path, wheel: Path | None = None) -> Path:
    """Return the source that stands for a package or a wheel: a requirements file, and the wheel beside it.

    Raises:
        FetchError: when the wheel is damaged.
    """
    root = scratch / "source"
    root.mkdir()
    if wheel is not None:
        try:
            with zipfile.ZipFile(wheel) as file:
                broken = file.testzip()
        except DAMAGED as error:
            raise FetchError(f"{shown(source)} (app_source) is damaged or not a wheel ({error}).") from error
        if broken:
            raise FetchError(f"{shown(source)} (app_source) is damaged: {broken} in it does not match its digest.")
        name = requirement.removeprefix("./")
        shutil.copyfile(wheel, root / name)
        requirement = f"# sha256:{sha256(wheel)}\n{requirement}"  # two wheels may have one name
    (root / "requirements.txt").write_text(f"{requirement}\n", encoding="utf-8")
    return root


def wheel_demands(wheel: Path, name: str) -> list[dict[str, Any]]:
    """Return what a wheel, which is called `name`, asks of the interpreter.

    Raises:
        Unreadable: when that is no version.
    """
    with zipfile.ZipFile(wheel) as file:
        member = next((each for each in file.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", each)), None)
        text = file.read(member).decode("utf-8", "replace") if member else ""
    found = re.search(r"^Requires-Python:\s*(\S.*?)\s*$", text.partition("\n\n")[0], re.MULTILINE)
    return [interpreters.demand(f"{name} (Requires-Python)", found[1], found[1])] if found else []
