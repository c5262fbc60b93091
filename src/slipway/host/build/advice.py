"""What an installer says, and what to do about it."""

from __future__ import annotations

import re

# Patterns of what it says, each with what to do. The first that fits is told.
ADVICE = (
    (
        r"hash mismatch|do not match the hashes|trailing contents after the end-of-central|ZIP file contains",
        "A package does not match its hash in the lock file. Find out why before you lock again.",
    ),
    (
        r"--require-hashes mode|require-hashes.*must have|must have their versions pinned",
        "Some requirements have hashes and some have none: recreate the file with hashes for all, for example with "
        "`uv pip compile --generate-hashes`.",
    ),
    (
        r"error sending request|failed to fetch|connection refused|dns error|connecttimeout|timed out|newconnectionerror"
        r"|name resolution|network is unreachable|proxyerror|could not connect|certificate verify|invalid peer certificate",
        "The package index does not answer this host: check its network, set a mirror in python_index_url or a proxy in "
        "python_proxy, or provide the wheels in app_wheelhouse.",
    ),
    (
        r"no usable wheels|no wheels with a matching|no wheel|has no wheels|building source distributions|marked as `?--no-build"
        r"|no-binary|no-build|no binary distribution",
        "A package has no wheel for this host and this Python. Pin a version that has one, provide one in app_wheelhouse, set "
        "app_python to an older version that it has one for, or set app_source_builds: true to build it on this host.",
    ),
    (
        r"current Python version \([\d.\w]+\) does not satisfy|requires a different Python|requires-python",
        "A package needs a different Python from that of the app: set app_python to a version that fits, which "
        "python_installer: uv installs, or pin a version of the package that runs on this one.",
    ),
    (
        r"no matching distribution|no solution found|not found in the package registry|was not found in the provided",
        "The requirements cannot be met: a package does not exist in the requested version, or has no wheel for this host "
        "(app_source_builds: true builds it on this host).",
    ),
)


def advice(output: str) -> str:
    """Return what to do about what an installer said; empty if nobody knows."""
    text = re.sub(r"\s+", " ", output)
    return next((what for pattern, what in ADVICE if re.search(pattern, text, re.IGNORECASE)), "")
