"""A set of configuration files: in place as a whole, tested before it counts, and a service that works with them."""
