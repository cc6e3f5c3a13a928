"""Names that users, Kubernetes and the three services agree on.

A name that appears in a manifest, on the wire or in a cluster object is written here once.
"""

from typing import Final, NewType

NodeName = NewType("NodeName", str)
GpuUuid = NewType("GpuUuid", str)
"""What NVML calls the UUID of a GPU, for example ``GPU-fef8089b-4820-abfc-e83e-94318197576e``."""
PodUid = NewType("PodUid", str)

DOMAIN: Final = "fracgpu.io"

# Extended resources, written into a container's limits.
RESOURCE_MEMORY: Final = "fracgpu.io/memory"
"""Counted in units: slices of ``memoryUnit`` MiB of video memory."""
RESOURCE_REPLICA: Final = "fracgpu.io/replica"
"""Counted in seats: time slices, 1/R of a GPU each."""

# Annotations that users write on a pod. Those in `PER_CONTAINER_ANNOTATIONS` may be followed by a dot and a container's
# name, and then speak of that container only: ``fracgpu.io/gpu-memory.trainer``.
ANNOTATION_GPU_MEMORY: Final = "fracgpu.io/gpu-memory"
ANNOTATION_GPU_FRACTION: Final = "fracgpu.io/gpu-fraction"
ANNOTATION_GPU_COUNT: Final = "fracgpu.io/gpu-count"
ANNOTATION_CONTAINER: Final = "fracgpu.io/container"
ANNOTATION_GPU_MODEL: Final = "fracgpu.io/gpu-model"
ANNOTATION_EXCLUDE_GPU_MODEL: Final = "fracgpu.io/exclude-gpu-model"
ANNOTATION_GPU_UUID: Final = "fracgpu.io/gpu-uuid"
ANNOTATION_EXCLUDE_GPU_UUID: Final = "fracgpu.io/exclude-gpu-uuid"
ANNOTATION_MIN_GPU_MEMORY: Final = "fracgpu.io/min-gpu-memory"
ANNOTATION_POLICY: Final = "fracgpu.io/policy"
SIZE_ANNOTATIONS: Final = (ANNOTATION_GPU_MEMORY, ANNOTATION_GPU_FRACTION)
SELECTION_ANNOTATIONS: Final = (
    ANNOTATION_GPU_MODEL,
    ANNOTATION_EXCLUDE_GPU_MODEL,
    ANNOTATION_GPU_UUID,
    ANNOTATION_EXCLUDE_GPU_UUID,
    ANNOTATION_MIN_GPU_MEMORY,
)
PER_CONTAINER_ANNOTATIONS: Final = (*SIZE_ANNOTATIONS, ANNOTATION_GPU_COUNT, *SELECTION_ANNOTATIONS)
USER_ANNOTATIONS: Final = (*PER_CONTAINER_ANNOTATIONS, ANNOTATION_CONTAINER, ANNOTATION_POLICY)

# Annotations that only fracgpu writes.
ANNOTATION_ALLOCATION: Final = "fracgpu.io/allocation"
"""The plan of a bound pod, written by the Binding itself."""
ANNOTATION_UNDERSTOOD: Final = "fracgpu.io/understood"
"""What the webhook made of a request in another tool's language, and what that request was."""

# The custom resource GPUNode: cluster-scoped, named as the node.
API_VERSION: Final = "v1alpha1"
GPUNODE_API_VERSION: Final = f"{DOMAIN}/{API_VERSION}"
GPUNODE_KIND: Final = "GPUNode"
GPUNODE_PLURAL: Final = "gpunodes"

# The custom resource SharingPolicy: cluster-scoped, written by administrators.
SHARINGPOLICY_KIND: Final = "SharingPolicy"
SHARINGPOLICY_PLURAL: Final = "sharingpolicies"

CDI_KIND: Final = "nvidia.com/gpu"
"""Vendor and class of the CDI devices that the NVIDIA container toolkit generates; a device is ``KIND=UUID``."""
