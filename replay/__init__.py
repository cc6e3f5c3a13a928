"""Replays workloads through the placement engine: traces of clusters, a real cluster, manifests."""
