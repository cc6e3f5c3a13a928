"""The benchmark of the extender, `make bench`: what it costs beside a route that only decodes and echoes."""
