"""Filters for what an operator reads."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from addresses import addresses
from text_table import text_table

COLUMNS = {"host": "HOST", "app": "APP", "note": "NOTE"}


def test_columns_are_aligned_and_empty_ones_left_out() -> None:
    rows = [{"host": "a.example.com", "app": None, "note": "ok"}, {"host": "b", "note": 3}]
    assert text_table(rows, COLUMNS) == ["HOST           NOTE", "a.example.com  ok", "b              3"]
    assert text_table([], COLUMNS) == [""]


def test_wide_letters_take_two_places() -> None:
    rows = [{"host": "主机", "note": "x"}, {"host": "host", "note": "y"}]
    assert text_table(rows, COLUMNS)[1:] == ["主机  x", "host  y"]


def test_names_lead_to_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert addresses("127.0.0.1") == ["127.0.0.1"]
    assert addresses("no-such-name.invalid") == []

    def found(name: str, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, 1, 6, "", (address, 0)) for address in ("192.0.2.2", "192.0.2.1", "192.0.2.2")]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    assert addresses("shop.example.com") == ["192.0.2.1", "192.0.2.2"]
