"""Release a build: start it beside the live release, wait until it is healthy, switch, and stop the old one; or roll back."""
