"""What runs in an app's own environment, copied into each release: Python 3.9 or newer, its standard library, and the server."""
