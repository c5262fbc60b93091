"""What an installer says, and what to do about it."""

from __future__ import annotations

import re

# Patterns of what it says, each with what to do. The first that fits is told.
ADVICE = (
    (
        r"hash mismatch|do not match the hashes|trailing contents after the end-of-central|ZIP file contains",
        "A package is not the one that the lock file names: its digest is another. Find out why before you lock anew.",
    ),
    (
        r"--require-hashes mode|require-hashes.*must have|must have their versions pinned",
        "Some requirements have hashes and some have none: make the file anew with hashes for all, such as with "
        "`uv pip compile --generate-hashes`.",
    ),
    (
        r"error sending request|failed to fetch|connection refused|dns error|connecttimeout|timed out|newconnectionerror"
        r"|name resolution|network is unreachable|proxyerror|could not connect|certificate verify|invalid peer certificate",
        "The package index does not answer this host: see to its network, name a mirror in python_index_url or a proxy in "
        "python_proxy, or bring the wheels along in app_wheelhouse.",
    ),
    (
        r"no usable wheels|no wheels with a matching|no wheel|has no wheels|building source distributions|marked as `?--no-build"
        r"|no-binary|no-build|no binary distribution",
        "A package has no wheel for this host. Pin a version that has one, bring one along in app_wheelhouse, or set "
        "app_source_builds: true to have it built here.",
    ),
    (
        r"current Python version \([\d.\w]+\) does not satisfy|requires a different Python|requires-python",
        "A package needs another Python than this host's: name one that fits in python_interpreter, pin a version that runs on "
        "this one, or set app_runtime: container.",
    ),
    (
        r"no matching distribution|no solution found|not found in the package registry|was not found in the provided",
        "The requirements cannot be met: a package is not there in the version that is asked for, or has no wheel for this host "
        "(app_source_builds: true has it built here).",
    ),
)


def advice(output: str) -> str:
    """Return what to do about what an installer said; empty if nobody knows."""
    text = re.sub(r"\s+", " ", output)
    return next((what for pattern, what in ADVICE if re.search(pattern, text, re.IGNORECASE)), "")
