"""What an app's source may be."""

from __future__ import annotations

from collections.abc import Callable

from slipway.controller.fetch.kind import is_download, may_be_fetched

DOCUMENTATION = """
name: source
short_description: Test what kind of source an app has
description:
  - C(fetchable) is a source that can be fetched, as far as that is known without a connection. A path must exist on
    the controller.
  - C(download) is the address of an archive or a wheel.
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
