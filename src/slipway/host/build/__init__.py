"""What makes builds: an app's code with its environment, or its image."""
