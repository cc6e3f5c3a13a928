"""The GPUs of this node: what NVML says of them, what they offer, and whether they are well."""
