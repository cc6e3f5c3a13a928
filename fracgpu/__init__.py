"""The shared vocabulary of fracgpu: names, quantities, requests, GPUs, plans and errors.

Everything directly in this package is pure (standard library and msgspec only). `fracgpu.kube` is the door to the
API server, `fracgpu.kubelet` the kubelet's gRPC interfaces, `fracgpu.process` what every service process needs to run.
The three services import this package and never each other.
"""
