"""Release a build: start it beside the live release, let it prove itself, switch to it, and stop the old one; or go back."""
