"""The app of a release, for its server to import."""

from slipway.runtime.asgi import serve

app = serve()
