"""What makes pods of workloads, as kube-controller-manager does: one module for each kind, and the loop that runs them.

Each kind's module decides on plain data: its object and what belongs to it in, a ``Plan`` out. Only ``manager`` reads
and writes. Left out: adoption of what belongs to nobody, ``minReadySeconds`` (a ready pod is an available one),
progress deadlines, and every other kind of workload.
"""
