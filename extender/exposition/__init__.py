"""What Prometheus is told of the cluster: looked at when it asks, where `extender.metrics` counts what happens."""
