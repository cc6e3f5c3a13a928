"""The admission webhook: a pod's annotations become the limits that Kubernetes counts, and mistakes are refused."""
