"""Check the variables of roles."""

from __future__ import annotations
