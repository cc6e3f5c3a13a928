"""The kubelet's gRPC interfaces (device plugin v1beta1, PodResources v1): definitions and generated stubs."""
