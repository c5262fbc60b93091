"""What runs on servers, shipped as one file: Python 3.9 or newer and its standard library alone."""
