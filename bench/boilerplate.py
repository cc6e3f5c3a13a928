"""What every pod of the benchmark has in common: the parts that make a real pod as large as it is. Pure data."""

from typing import Any, Final

from bench.cluster import CONTAINER, NAMESPACE
from fracgpu.names import GPUNODE_API_VERSION, RESOURCE_MEMORY

STARTED: Final = "2026-11-20T08:14:31Z"


def _owned(manager: str, fields: dict[str, Any], *, subresource: str = "") -> dict[str, Any]:
    tail = {"subresource": subresource} if subresource else {}
    head = {"manager": manager, "operation": "Update", "apiVersion": "v1", "time": STARTED}
    return {**head, "fieldsType": "FieldsV1", "fieldsV1": fields, **tail}


def _nothing(*names: str) -> dict[str, Any]:
    return {name: {} for name in names}


TOKEN_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 (a path)

ENV: Final = [
    {"name": f"LLM_{name}_{number}", "value": f"https://{name.lower()}-{number}.{NAMESPACE}.svc.cluster.local:8443"}
    for number in range(6)
    for name in ("TOKENIZER", "TELEMETRY", "FEATURE_STORE", "OBJECT_STORE", "ROUTER", "LICENSE", "CACHE")
]

VOLUMES: Final = [
    {"name": "models", "persistentVolumeClaim": {"claimName": "models-ro", "readOnly": True}},
    {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}},
    {"name": "config", "configMap": {"name": "llm-server-config", "defaultMode": 420}},
    {
        "name": "kube-api-access-x7k2p",
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            ],
            "defaultMode": 420,
        },
    },
]

TOLERATIONS: Final = [
    {"key": "gpu", "operator": "Equal", "value": "shared", "effect": "NoSchedule"},
    *(
        {
            "key": f"node.kubernetes.io/{name}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 300,
        }
        for name in ("not-ready", "unreachable")
    ),
]

MANAGED_FIELDS: Final = [
    _owned(
        "kube-controller-manager",
        {
            "f:metadata": {
                "f:annotations": _nothing(".", "f:checksum/config", "f:prometheus.io/port", "f:prometheus.io/scrape"),
                "f:generateName": {},
                "f:labels": _nothing(
                    ".", "f:app.kubernetes.io/instance", "f:app.kubernetes.io/name", "f:pod-template-hash"
                ),
                "f:ownerReferences": {".": {}, 'k:{"uid":"5d0c2a51-7e0b-4c55-9a6e-0f6f3a8f9b11"}': {}},
            },
            "f:spec": {
                "f:containers": {
                    f'k:{{"name":"{CONTAINER}"}}': {
                        **_nothing(".", "f:args", "f:image", "f:imagePullPolicy", "f:name", "f:securityContext"),
                        "f:livenessProbe": _nothing(".", "f:failureThreshold", "f:httpGet", "f:periodSeconds"),
                        "f:resources": {".": {}, "f:limits": _nothing(".", "f:cpu", f"f:{RESOURCE_MEMORY}")},
                    }
                },
                **_nothing("f:dnsPolicy", "f:restartPolicy", "f:schedulerName", "f:serviceAccount", "f:tolerations"),
            },
        },
    ),
    _owned(
        "kubelet",
        {
            "f:status": {
                "f:conditions": {
                    f'k:{{"type":"{name}"}}': _nothing(".", "f:lastProbeTime", "f:status", "f:type")
                    for name in ("Initialized", "Ready", "ContainersReady")
                },
                **_nothing("f:containerStatuses", "f:hostIP", "f:phase", "f:podIP", "f:podIPs", "f:startTime"),
            }
        },
        subresource="status",
    ),
]

GPUNODE_FIELDS: Final = [
    {
        "manager": "fracgpu-plugin",
        "operation": "Apply",
        "apiVersion": GPUNODE_API_VERSION,
        "time": STARTED,
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": _nothing("f:gpus", "f:memoryUnitMiB")},
    },
    {
        "manager": "fracgpu-plugin",
        "operation": "Apply",
        "apiVersion": GPUNODE_API_VERSION,
        "time": STARTED,
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:status": _nothing("f:grants", "f:observedPods")},
        "subresource": "status",
    },
]
