"""The one door to the Kubernetes API server: client, list-and-watch reflector, writes."""
