"""The example application that Slipway releases."""

__version__ = "1.0.0"
