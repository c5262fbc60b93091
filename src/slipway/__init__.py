"""Slipway: releases of FastAPI apps without a dropped request."""
