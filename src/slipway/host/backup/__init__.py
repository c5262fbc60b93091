"""Backups of an app by restic, and their restore: its database, its shared directory, and the history of its releases."""
