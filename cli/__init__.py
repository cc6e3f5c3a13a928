"""The command line: ``fracgpu``."""
