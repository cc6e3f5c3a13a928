"""The scheduler loop: kube-scheduler's order of calls, its queue and its arithmetic."""
