"""Jobs: what an app runs at times, by timers of systemd, with the code and the settings of its live release."""
