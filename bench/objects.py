"""The cluster's objects as JSON, of the size and content that a real API server of Kubernetes 1.36 keeps.

A running pod has managedFields, and a status that lists every device ID of its containers; a waiting pod is as
kube-scheduler puts it into an extender's arguments, without managedFields. Pure.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from bench.boilerplate import ENV, GPUNODE_FIELDS, MANAGED_FIELDS, STARTED, TOKEN_PATH, TOLERATIONS, VOLUMES
from bench.cluster import CONTAINER, GPU_MIB, NAMESPACE, SEATS, UNITS, Node, RunningPod, Shape
from fracgpu.device_ids import DeviceId
from fracgpu.gpunodes import Gpu, GpuNode, GpuNodeSpec, GpuNodeStatus, Grant
from fracgpu.names import (
    ANNOTATION_ALLOCATION,
    ANNOTATION_GPU_COUNT,
    RESOURCE_MEMORY,
    RESOURCE_REPLICA,
    NodeName,
    PodUid,
)
from fracgpu.plans import encode_plan
from fracgpu.pods import ObjectMeta
from fracgpu.quantities import DEFAULT_MEMORY_UNIT

JsonObject = dict[str, Any]

_CREATED: Final = "2026-11-20T08:14:07Z"
_WAITING_ENV: Final = 36  # variables: brings a waiting pod to 6.7 KB
_RUNNING_ENV: Final = 2
_SHA: Final = "9f2c41d07be35a6688d1e4b0c3fa57921e6d84b0a7c5f39d12e8b64a0f7c3d95"


def waiting_pod(name: str, uid: PodUid, shape: Shape) -> JsonObject:
    """A pod that waits for a node, as the API server keeps it (kube-scheduler sends the same)."""
    pod = _pod(name, uid, shape, env=_WAITING_ENV)
    pod["spec"]["affinity"] = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]}
                ]
            }
        }
    }
    pod["status"] = {"phase": "Pending", "qosClass": "Burstable"}
    return pod


def running_pod(pod: RunningPod, node: NodeName, *, resource_version: int) -> bytes:
    """A pod that runs, with everything that the API server keeps of it."""
    found = _pod(pod.name, pod.uid, pod.shape, env=_RUNNING_ENV)
    found["metadata"]["resourceVersion"] = str(resource_version)
    found["metadata"]["annotations"][ANNOTATION_ALLOCATION] = encode_plan(pod.plan)
    found["metadata"]["managedFields"] = MANAGED_FIELDS
    found["spec"]["nodeName"] = node
    found["status"] = _running_status(pod)
    return msgspec.json.encode(found)


def bound_pod(waiting: JsonObject, node: str, *, annotations: Mapping[str, str], resource_version: int) -> bytes:
    """A waiting pod after its Binding."""
    metadata = waiting["metadata"]
    condition = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": STARTED}
    return msgspec.json.encode(
        {
            **waiting,
            "metadata": {
                **metadata,
                "resourceVersion": str(resource_version),
                "annotations": {**metadata.get("annotations", {}), **annotations},
            },
            "spec": {**waiting["spec"], "nodeName": node},
            "status": {**waiting["status"], "conditions": [condition]},
        }
    )


def gpu_node(node: Node, *, resource_version: int, observed_pods: int) -> bytes:
    """The node's GPUNode, with a grant of every pod that runs there."""
    grants = tuple(Grant(pod.uid, NAMESPACE, pod.name, dict(pod.plan.containers)) for pod in node.pods)
    gpus = tuple(
        Gpu(uuid, index, "NVIDIA H100 80GB HBM3", GPU_MIB, UNITS, SEATS, numa_node=index // 4)
        for index, uuid in enumerate(node.gpus)
    )
    found = msgspec.to_builtins(
        GpuNode(
            ObjectMeta(
                name=node.name,
                uid=PodUid(f"{node.pods[0].uid[:-12]}000000000000"),
                resource_version=str(resource_version),
                creation_timestamp=_CREATED,
            ),
            GpuNodeSpec(DEFAULT_MEMORY_UNIT, gpus),
            GpuNodeStatus(str(observed_pods), grants),
        )
    )
    found["metadata"] = {key: value for key, value in found["metadata"].items() if value}
    found["metadata"]["managedFields"] = GPUNODE_FIELDS
    return msgspec.json.encode(found)


def extender_args(pod: Mapping[str, Any], names: Sequence[str]) -> bytes:
    """The arguments of filter and prioritize, as kube-scheduler sends them with nodeCacheCapable."""
    metadata = {key: value for key, value in pod["metadata"].items() if key != "managedFields"}
    bare = {"metadata": metadata, "spec": pod["spec"], "status": pod["status"]}
    return msgspec.json.encode({"Pod": bare, "Nodes": None, "NodeNames": names})


def binding_args(pod: Mapping[str, Any], node: str) -> bytes:
    """The arguments of bind."""
    metadata = pod["metadata"]
    return msgspec.json.encode(
        {"PodName": metadata["name"], "PodNamespace": metadata["namespace"], "PodUID": metadata["uid"], "Node": node}
    )


def _pod(name: str, uid: PodUid, shape: Shape, *, env: int) -> JsonObject:
    owner = name.rpartition("-")[0]
    gpus = {ANNOTATION_GPU_COUNT: str(shape.gpus)} if shape.gpus > 1 else {}
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "generateName": f"{owner}-",
            "namespace": NAMESPACE,
            "uid": uid,
            "resourceVersion": "1",
            "generation": 1,
            "creationTimestamp": _CREATED,
            "labels": {
                "app.kubernetes.io/name": "llm-server",
                "app.kubernetes.io/instance": owner,
                "app.kubernetes.io/managed-by": "Helm",
                "pod-template-hash": "6b7f9d8c54",
            },
            "annotations": {
                "checksum/config": _SHA,
                "kubectl.kubernetes.io/restartedAt": "2026-11-19T17:02:11Z",
                "prometheus.io/scrape": "true",
                "prometheus.io/port": "8000",
                **gpus,
            },
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": owner,
                    "uid": "5d0c2a51-7e0b-4c55-9a6e-0f6f3a8f9b11",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": _spec(shape, env=env),
    }


def _spec(shape: Shape, *, env: int) -> JsonObject:
    resource, amount = (RESOURCE_REPLICA, shape.seats) if shape.seats else (RESOURCE_MEMORY, shape.units)
    amounts = {"cpu": "4", "memory": "24Gi", resource: str(amount * shape.gpus)}
    probe = {
        "httpGet": {"path": "/health", "port": "http", "scheme": "HTTP"},
        "initialDelaySeconds": 30,
        "timeoutSeconds": 5,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 6,
    }
    token = {"name": "kube-api-access-x7k2p", "readOnly": True, "mountPath": TOKEN_PATH}
    return {
        "volumes": VOLUMES,
        "containers": [
            {
                "name": CONTAINER,
                "image": f"registry.example.com/ml/llm-server@sha256:{_SHA}",
                "args": ["--model=/models/current", "--port=8000", "--max-model-len=16384", "--dtype=bfloat16"],
                "ports": [{"name": "http", "containerPort": 8000, "protocol": "TCP"}],
                "env": ENV[:env],
                "resources": {"limits": amounts, "requests": amounts},
                "volumeMounts": [
                    {"name": "models", "readOnly": True, "mountPath": "/models"},
                    {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 (a path in a container)
                    {"name": "config", "readOnly": True, "mountPath": "/etc/llm"},
                    token,
                ],
                "livenessProbe": probe,
                "readinessProbe": {**probe, "httpGet": {**probe["httpGet"], "path": "/ready"}},  # type: ignore[dict-item]
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "imagePullPolicy": "IfNotPresent",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 60,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "llm-server",
        "serviceAccount": "llm-server",
        "securityContext": {"runAsUser": 10001, "runAsGroup": 10001, "runAsNonRoot": True, "fsGroup": 10001},
        "schedulerName": "default-scheduler",
        "tolerations": TOLERATIONS,
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
    }


def _running_status(pod: RunningPod) -> JsonObject:
    conditions = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    address = f"10.{128 + pod.number // 65536}.{pod.number // 256 % 256}.{pod.number % 256}"
    return {
        "phase": "Running",
        "conditions": [
            {
                "type": name,
                "status": "True",
                "observedGeneration": 1,
                "lastProbeTime": None,
                "lastTransitionTime": STARTED,
            }
            for name in conditions
        ],
        "hostIP": "10.17.0.9",
        "hostIPs": [{"ip": "10.17.0.9"}],
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": _CREATED,
        "containerStatuses": [
            {
                "name": CONTAINER,
                "state": {"running": {"startedAt": STARTED}},
                "lastState": {},
                "ready": True,
                "restartCount": 0,
                "image": f"registry.example.com/ml/llm-server@sha256:{_SHA}",
                "imageID": f"registry.example.com/ml/llm-server@sha256:{_SHA}",
                "containerID": f"containerd://{_SHA[::-1]}",
                "started": True,
                "allocatedResourcesStatus": [_devices(pod)],
                "user": {"linux": {"uid": 10001, "gid": 10001, "supplementalGroups": [10001]}},
            }
        ],
        "qosClass": "Burstable",
        "observedGeneration": 1,
    }


def _devices(pod: RunningPod) -> JsonObject:
    """The device IDs that the kubelet gave the container: as many per GPU as the pod asked units, or seats."""
    shape = pod.shape
    resource = RESOURCE_REPLICA if shape.seats else RESOURCE_MEMORY
    ids = [DeviceId(gpu, resource, number) for gpu in sorted(pod.gpus) for number in range(shape.seats or shape.units)]
    return {"name": resource, "resources": [{"resourceID": str(device), "health": "Healthy"} for device in ids]}
