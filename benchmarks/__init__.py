"""Benchmarks of what placement comes to, not of how fast it is: see `bench` for that."""
