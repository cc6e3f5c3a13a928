"""KAI's newer form: annotations that name the container and ask for bytes."""

from typing import Any

import pytest

from tests.webhook.builders import POLICY, container
from tests.webhook.dialects.cases import MEMORY, WITHOUT, Becomes, Refused, Untouched, check, several
from webhook.policy import Policy

COUNT = "gpu-fraction-num-devices"
BY_MEMORY = {"gpu-memory": "4096Mi"}
EIGHT = {"main": {MEMORY: "8"}}
ONLY_OLDER = Policy(unit=POLICY.unit, replicas=POLICY.replicas, dialects=frozenset({"kai"}))


def key(kind: str, name: str = "main") -> str:
    return f"nvidia.com/container.{name}.{kind}"


REQUEST, LIMIT, MODE = key("gpu-memory.request"), key("gpu-memory.limit"), key("gpu-compute.mode")


def asks(notes: dict[str, str], *containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return several(list(containers) or [container()], notes, **more)


CASES: dict[str, Becomes | Refused | Untouched] = {
    "a request": Becomes(asks({REQUEST: "4Gi"}), BY_MEMORY, EIGHT),
    "a limit": Becomes(asks({LIMIT: "4096Mi"}), BY_MEMORY, EIGHT),
    "both, spelled differently": Becomes(asks({REQUEST: "4Gi", LIMIT: "4096Mi"}), BY_MEMORY, EIGHT),
    "bytes are rounded up to MiB": Becomes(
        asks({REQUEST: "4294967297"}), {"gpu-memory": "4097Mi"}, {"main": {MEMORY: "9"}}
    ),
    "decimal megabytes": Becomes(asks({REQUEST: "500M"}), {"gpu-memory": "477Mi"}, {"main": {MEMORY: "1"}}),
    "both, the same when rounded up": Becomes(
        asks({REQUEST: "500M", LIMIT: "477Mi"}), {"gpu-memory": "477Mi"}, {"main": {MEMORY: "1"}}
    ),
    "blanks around": Becomes(asks({REQUEST: " 4Gi "}), BY_MEMORY, EIGHT),
    "two containers": Becomes(
        asks(
            {key("gpu-memory.request", "a"): "1Gi", key("gpu-memory.limit", "b"): "2Gi"},
            container("a"),
            container("b"),
            container("c"),
        ),
        {"gpu-memory.a": "1024Mi", "gpu-memory.b": "2048Mi"},
        {"a": {MEMORY: "2"}, "b": {MEMORY: "4"}},
    ),
    "the second container": Becomes(
        asks({REQUEST: "4Gi"}, container("a"), container()), {**BY_MEMORY, "container": "main"}, EIGHT
    ),
    "a sidecar": Becomes(
        asks({REQUEST: "4Gi"}, container("a"), init=(container(restart="Always"),)),
        {**BY_MEMORY, "container": "main"},
        EIGHT,
    ),
    "on each of two GPUs": Becomes(
        asks({REQUEST: "4Gi", COUNT: "2"}), {**BY_MEMORY, "gpu-count": "2"}, {"main": {MEMORY: "16"}}
    ),
    "the container named twice": Becomes(
        asks({REQUEST: "4Gi", "gpu-fraction-container-name": "main"}), BY_MEMORY, EIGHT
    ),
    "taking turns": Becomes(asks({REQUEST: "4Gi", MODE: "time-slicing "}), BY_MEMORY, EIGHT),
    "KAI's scheduler": Becomes(
        asks({REQUEST: "4Gi"}, scheduler="kai-scheduler"), BY_MEMORY, EIGHT, scheduler="default-scheduler"
    ),
    "switched off": Untouched(asks({REQUEST: "4Gi"}, scheduler="kai-scheduler"), WITHOUT),
    "switched off beside the older form": Untouched(asks({REQUEST: "4Gi", COUNT: "2"}), ONLY_OLDER),
    "a limit above the request": Refused(
        asks({REQUEST: "4Gi", LIMIT: "8Gi"}), (f"{LIMIT} is '8Gi' and differs", "equal to the request")
    ),
    "a forgotten suffix": Refused(asks({REQUEST: "4096"}), (f"{REQUEST} is '4096'", "from 1Mi to 16Ti", '"4Gi"')),
    "a size of 0": Refused(asks({REQUEST: "0"}), (f"{REQUEST} is '0'",)),
    "a negative size": Refused(asks({REQUEST: "-4Gi"}), (f"{REQUEST} is '-4Gi'",)),
    "no size": Refused(asks({REQUEST: ""}), (f"{REQUEST} is ''",)),
    "a size of more than any GPU": Refused(asks({REQUEST: "17Ti"}), (f"{REQUEST} is '17Ti'",)),
    "a size in another script": Refused(asks({REQUEST: "４Gi"}), (f"{REQUEST} is",)),
    "an unknown container": Refused(
        asks({key("gpu-memory.request", "c"): "4Gi"}), ("'c' is no container of this pod", "'main'", f"{REQUEST}")
    ),
    "no container": Refused(several([], {REQUEST: "4Gi"}), ("no container of this pod",)),
    "an ordinary init container": Refused(
        asks({key("gpu-memory.request", "warm"): "4Gi"}, init=(container("warm"),)), ("init container 'warm' asks",)
    ),
    "a way of sharing alone": Refused(
        asks({MODE: "time-slicing"}), (f"{MODE} is set", f'{REQUEST}, for example "4Gi"')
    ),
    "computing side by side": Refused(asks({REQUEST: "4Gi", MODE: "sm-sharing"}), (f"{MODE} is 'sm-sharing'", "turns")),
    "an empty way of sharing": Refused(asks({REQUEST: "4Gi", MODE: ""}), (f"{MODE} is ''",)),
    "a part of the computing power": Refused(
        asks({REQUEST: "4Gi", key("gpu-compute.request"): "0.5"}), (key("gpu-compute.request"), "which fracgpu cannot")
    ),
    "devices that only its scheduler writes": Refused(
        asks({REQUEST: "4Gi", key("gpus.devices"): "GPU-a"}), (key("gpus.devices"),)
    ),
    "a mistyped kind": Refused(
        asks({key("gpu-memory.requests"): "4Gi"}), (key("gpu-memory.requests"), ".gpu-memory.limit")
    ),
    "another container named": Refused(
        asks({REQUEST: "4Gi", "gpu-fraction-container-name": "b"}, container(), container("b")),
        ("gpu-fraction-container-name is 'b'", "another container"),
    ),
    "0 GPUs": Refused(asks({REQUEST: "4Gi", COUNT: "0"}), (f"{COUNT} is '0'",)),
    "whole GPUs beside": Refused(
        asks({REQUEST: "4Gi"}, container("main", {"nvidia.com/gpu": "1"})),
        (f"in several languages: {REQUEST} (kai-gpu-fractioning), nvidia.com/gpu (nvidia)",),
    ),
    "mps": Refused(asks({REQUEST: "4Gi", "mps": "true"}), ("annotation mps is 'true'",)),
}


@pytest.mark.parametrize("name", CASES)
def test_kai_gpu_fractioning(name: str) -> None:
    check(CASES[name], dialect="kai-gpu-fractioning")
