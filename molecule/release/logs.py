"""Where logs of the test hosts are, what they say, and an app that says much."""

from __future__ import annotations

import json
from typing import Any

from molecule.conftest import Host

ACCESS = "/var/log/nginx/shop.access.log"
TOKEN = "token-of-a-client"

SAYS = """
import logging, sys
logger = logging.getLogger("shop")
logger.setLevel("INFO")
# A part of the app that gives its lines a form itself.
own = logging.getLogger("own")
own.addHandler(logging.StreamHandler(sys.stdout))
own.handlers[0].setFormatter(logging.Formatter('{"event": "%(message)s", "part": "own"}'))
own.propagate = False

@app.get("/say/{number}")
async def say(number: str):
    logger.info("%s %s", number, "x" * 3000)
    return {}

@app.get("/own/{name}")
async def told(name: str):
    own.warning(name)
    return {}

@app.get("/leak")
async def leak():
    logger.warning("asked https://api.test/?user=1&token=@TOKEN@ with %s", os.environ)
    raise RuntimeError(dict(os.environ))
""".replace("@TOKEN@", TOKEN)


def records(host: Host, command: str) -> list[dict[str, Any]]:
    """Return the lines of JSON that a command prints, without what only makes them long."""
    lines = host.run(f"{command} | sed -E 's/ x{{9,}}//'", check=False).split("\n")
    return [json.loads(line) for line in lines if line.startswith("{")]


def files(host: Host) -> list[dict[str, Any]]:
    """Return what the live release logged to files, the older ones first: a line may begin in one and end in the next."""
    return records(host, f"cat $(ls -vr /var/log/shop/{host.live()}.log*)")


def journal(host: Host) -> list[dict[str, Any]]:
    """Return what the live release logged to the journal."""
    return records(host, f"journalctl --quiet --no-pager --all --output=cat --identifier=shop-{host.live()}")


def accesses(host: Host, having: str) -> list[dict[str, Any]]:
    """Return what Nginx logged of answers, in files old and new, in lines that have something."""
    return records(host, f"zcat -f $(ls -vr {ACCESS}*) | grep -F '{having}'")


def leaks(host: Host, *words: str) -> list[str]:
    """Return the logs that have one of some words: files of all kinds, and the journal."""
    given = " ".join(f"-e {word}" for word in words)
    search = f"find /var/log -type f | while read -r log; do zcat -f $log 2>/dev/null | grep -qaF {given} && echo $log; done"
    found = host.run(f"{search}; journalctl --no-pager --all | grep -F {given} | head -3", check=False)
    return [line for line in found.split("\n") if line]
