"""Kubernetes without Kubernetes, for the demo and the tests: cluster parts, never imported by a service."""
