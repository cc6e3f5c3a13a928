"""What fits, what scores, which GPUs: pure functions on a view of the nodes, without I/O, clocks or randomness."""
