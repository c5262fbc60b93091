"""Import the app as its release would, and say in a few lines what keeps it from starting."""

from __future__ import annotations

import filecmp
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from slipway.runtime import application
from slipway.runtime.frontends import chosen
from slipway.runtime.release import Release, read

HEADLINE = "slipway-headline:"  # what follows it in a line is what the operator reads first

# How this ends where the app can be imported and would not be served as it says, or would have served what is closed.
UNFIT, OPEN = 3, 4


def first_line(text: object) -> str:
    """Return the first line of a text that has anything."""
    return next((line.strip() for line in str(text).splitlines() if line.strip()), "")


def headline(error: BaseException) -> str:
    """Return an exception in one line: its kind, and the first line of what it says."""
    kind = type(error).__name__
    if type(error).__module__ not in ("builtins", "__main__"):
        kind = f"{type(error).__module__}.{type(error).__qualname__}"
    message = first_line(error)
    inner = getattr(error, "exceptions", None)
    if isinstance(inner, (tuple, list)) and inner:
        return f"{kind}: {message}: {headline(inner[0])}"
    return f"{kind}: {message}" if message else kind


def refused(error: Any) -> list[str]:
    """Return what pydantic refuses, a line each; empty where it is not that."""
    if type(error).__name__ != "ValidationError" or not hasattr(error, "errors"):
        return []
    errors = error.errors(include_input=False, include_url=False)
    return [f"{'.'.join(map(str, flaw['loc'])) or 'as a whole'}: {flaw['msg']}" for flaw in errors]


def traceback_of(error: BaseException) -> str:
    """Return an exception at length: the last of the app's own frames, what it says, and what it came from."""
    ours = (__file__, application.__file__)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename and frame.filename not in ours]
    text = "".join(traceback.format_list(own[-5:]) + traceback.format_exception_only(type(error), error)).rstrip()
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return f"{text}\nIt came from {headline(before)}" if before is not None else text


def end(headline_text: str, text: str = "", code: int = 1) -> NoReturn:
    """End with a headline, below a text where there is one."""
    print(*filter(None, [text, f"{HEADLINE} {headline_text}"]), sep="\n", flush=True)
    sys.stderr.flush()
    os._exit(code)


def imported(name: str) -> Any:
    """Return the app, or end with what it says."""
    try:
        return application.load(name)
    except SystemExit as error:
        message = first_line("" if error.code is None or isinstance(error.code, int) else error.code)
        code = error.code if isinstance(error.code, int) else 1
        end(f"it exits with exit code {code}{': ' * bool(message)}{message}", traceback_of(error))
    except BaseException as error:
        errors = refused(error)
        if errors:
            headline_text = f"{getattr(error, 'title', '')} refuses the settings (app_env, app_secrets)"
            end(f"{headline_text}: {'; '.join(errors)}", "\n".join([f"{headline_text}:", *(f"  {flaw}" for flaw in errors)]))
        hint = ""
        if isinstance(error, ModuleNotFoundError) and error.name and not os.path.exists(error.name.partition(".")[0]):
            hint = f"No installed package provides {error.name}: "
            hint += "add to app_extra_requirements what the app's own files lack.\n"
        end(headline(error), hint + traceback_of(error))


def hidden(app: Any, path: str, static: str) -> str:
    """Say which static file of the app's own Nginx would hide, since it has another of that name; empty for none.

    What Nginx finds in its folder it serves before the app is asked.

    Args:
        app: the app.
        path: what the folder is served below, without a slash at its end.
        static: the folder.
    """
    for route in getattr(app, "routes", []):
        folder = getattr(getattr(route, "app", None), "directory", None)
        if getattr(route, "path", "") != path or not folder or not os.path.isdir(folder) or not os.path.isdir(static):
            continue
        if os.path.samefile(folder, static):
            continue
        for place, _, names in os.walk(folder):
            for name in names:
                file = os.path.relpath(os.path.join(place, name), folder)
                other = os.path.join(static, file)
                if os.path.isfile(other) and not filecmp.cmp(os.path.join(folder, file), other, shallow=False):
                    return (
                        f"{path}/{file} is one file for the app (in {folder}) and another for Nginx, which would serve {other}: "
                        "set app_static to the folder that is meant, or to '' to have the app serve its own."
                    )
    return ""


def is_closed(path: str, closed: Iterable[str]) -> bool:
    """Say whether Nginx hands a path on for nobody."""
    return any(path == each or path.startswith(f"{each}/") for each in closed)


def opened(app: Any, closed: list[str]) -> Iterator[str]:
    """Say which closed paths the app has at another place, too: a path below its root_path is taken for one without it."""
    root = str(getattr(app, "root_path", None) or "").rstrip("/")
    routes = getattr(app, "routes", []) if root.startswith("/") else []
    # Newer ones of FastAPI keep a router that an app includes as one.
    each_route: Any = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", iter)
    for route in each_route(routes):
        path = str(getattr(route, "path", ""))
        if is_closed(path, closed) and not is_closed(root + path, closed):
            yield f"the app has {path}, which is closed, at {root}{path}, too, since its root_path is {root}"


def main(release: Release) -> NoReturn:
    """Import the app, look it over, and end with 0 where nothing speaks against it."""
    needed = release.modules if release.container else []
    lacking = [name for name in needed if importlib.util.find_spec(name.partition(".")[0]) is None]
    if lacking:
        remedy = f"have it install what app_server: {release.server} needs, or set app_server to what it has"
        end(f"the image lacks {', '.join(lacking)}: {remedy}")
    sys.path[0] = os.getcwd()  # not the directory of this file, which has modules of ours
    app = imported(release.module)
    for flaw in filter(None, (hidden(app, path, folder) for path, folder in release.static.items())):
        end(flaw, code=UNFIT)
    for flaw in opened(app, release.closed_paths):
        end(flaw, code=OPEN)
    try:
        chosen(app, release.frontend)
    except ValueError as error:
        end(str(error), code=UNFIT)
    # Not by the usual way: threads that the app has started already are not waited for.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(read())
