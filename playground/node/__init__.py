"""A node without hardware: kubelet, containers, cgroups, NVML, and a container runtime for the real kubelet."""
