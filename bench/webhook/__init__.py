"""The benchmark of the admission webhook, `make bench-webhook`: what it costs beside a server that decides nothing."""
