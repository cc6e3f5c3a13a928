"""The patch holds what is missing and nothing else."""

from typing import Any

import pytest

from tests.webhook.builders import container, decide, pod

MEMORY = "fracgpu.io/memory"
BOTH = {"limits": {MEMORY: "8"}, "requests": {MEMORY: "8"}}
AT = "/spec/containers/0/resources"

CASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "no resources": (container(), [{"op": "add", "path": AT, "value": BOTH}]),
    "null resources": ({"name": "main", "resources": None}, [{"op": "add", "path": AT, "value": BOTH}]),
    "empty resources": (
        {"name": "main", "resources": {}},
        [
            {"op": "add", "path": f"{AT}/limits", "value": {MEMORY: "8"}},
            {"op": "add", "path": f"{AT}/requests", "value": {MEMORY: "8"}},
        ],
    ),
    "null limits, other requests": (
        {"name": "main", "resources": {"limits": None, "requests": {"cpu": "1"}}},
        [
            {"op": "add", "path": f"{AT}/limits", "value": {MEMORY: "8"}},
            {"op": "add", "path": f"{AT}/requests/fracgpu.io~1memory", "value": "8"},
        ],
    ),
    "empty limits": (
        container("main", {}, requests={}),
        [
            {"op": "add", "path": f"{AT}/limits/fracgpu.io~1memory", "value": "8"},
            {"op": "add", "path": f"{AT}/requests/fracgpu.io~1memory", "value": "8"},
        ],
    ),
    "the limit is there": (
        container("main", {MEMORY: "8"}),
        [{"op": "add", "path": f"{AT}/requests", "value": {MEMORY: "8"}}],
    ),
    "all is there": (container("main", {MEMORY: "8"}, requests={MEMORY: 8}), []),
}


@pytest.mark.parametrize(("before", "want"), CASES.values(), ids=CASES)
def test_patch(before: dict[str, Any], want: list[dict[str, Any]]) -> None:
    assert decide(pod({"gpu-memory": "4Gi"}, before)).operations == want


def test_fields_that_we_do_not_know_survive() -> None:
    manifest = pod(
        {"gpu-memory": "4Gi", "container": "proxy"},
        container("main") | {"resources": {"claims": [{"name": "x"}]}},
        init=(container("warm"), container("proxy", {"cpu": "1"}, restart="Always") | {"future": {"field": 1}}),
    )

    after = decide(manifest).manifest

    proxy = after["spec"]["initContainers"][1]
    assert proxy.pop("resources") == {"limits": {"cpu": "1", MEMORY: "8"}, "requests": {MEMORY: "8"}}
    del manifest["spec"]["initContainers"][1]["resources"]
    assert after == manifest
