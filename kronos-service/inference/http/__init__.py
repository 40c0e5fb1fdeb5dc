"""The HTTP side of the service: app, routes, keys, errors, logs."""
