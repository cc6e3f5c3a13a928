"""What the device plugin costs, its process on simulated nodes: ``python -m bench.plugin``, docs/performance.md."""
