"""What an app's source may be."""

from __future__ import annotations

from collections.abc import Callable

from slipway.controller.fetch.kind import is_download, may_be_fetched

DOCUMENTATION = """
name: source
short_description: What an app's source may be
description:
  - C(fetchable) is what can be fetched, as far as the controller sees it before anything is asked. What is said to lie on the
    controller must be there.
  - C(download) is an archive or a wheel by its address.
options:
  _input: {type: str, required: true, description: "The source, as in app_source."}
"""

EXAMPLES = """
known: "{{ 'https://github.com/example/shop.git' is fetchable }}"
loose: "{{ 'https://example.com/shop-1.4.tar.gz' is download and not app_checksum }}"
"""

RETURN = """
_value: {type: bool, description: "Whether it is."}
"""


class TestModule:
    """The tests of this file."""

    def tests(self) -> dict[str, Callable[[str], bool]]:
        """Return them by name."""
        return {"download": is_download, "fetchable": may_be_fetched}
