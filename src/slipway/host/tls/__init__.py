"""The certificates of a host: one to start with, one from a CA of the internet, and those of the balancers' own CA."""
