"""What the webhook does behind a real kube-apiserver: other tools' manifests, workloads, and what there is of GPUs."""

import json
import ssl
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.conftest import PODS, Api, pod, webhook_process
from tests.deploy.gpunodes import gpunode
from tests.realcluster import RealControlPlane
from tests.webhook.builders import review
from webhook.workloads import WORKLOADS

pytestmark = pytest.mark.e2e

MEMORY = "fracgpu.io/memory"


def workload(kind: str, template: dict[str, Any], *, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    """A workload of some kind around a pod template."""
    group = next(f"{group}/{version}" for group, version, name in WORKLOADS if name == kind)
    labels = {"app": "x"}
    template = {
        "metadata": {"labels": labels, "annotations": template["metadata"]["annotations"]},
        "spec": template["spec"],
    }
    spec: dict[str, Any] = {"template": template}
    if kind in ("Job", "CronJob"):
        template["spec"]["restartPolicy"] = "Never"
    else:
        spec["selector"] = {"matchLabels": labels}
    if kind == "StatefulSet":
        spec["serviceName"] = "x"
    if kind == "CronJob":
        spec = {"schedule": "0 0 * * *", "jobTemplate": {"spec": spec}}
    return {
        "apiVersion": group,
        "kind": kind,
        "metadata": {"name": "x", "annotations": annotations or {}},
        "spec": spec,
    }


def path_of_kind(kind: str) -> str:
    group = next(group for group, _, name in WORKLOADS if name == kind)
    return f"/apis/{group}/v1/namespaces/team-a/{kind.lower()}s?dryRun=All"


DIALECTS = {
    "gpushare": (pod("p", resources={"limits": {"aliyun.com/gpu-mem": "4"}}), {MEMORY: "8"}),
    "hami": (
        pod("p", resources={"limits": {"nvidia.com/gpu": "2", "nvidia.com/gpumem": "3000", "cpu": "1"}}),
        {"cpu": "1", MEMORY: "12"},
    ),
    "kai": (pod("p", {"gpu-fraction": "0.5"}), {"fracgpu.io/replica": "2"}),
    "kai-gpu-fractioning": (
        pod("p", {"nvidia.com/container.main.gpu-memory.request": "2000Mi"}),
        {MEMORY: "4"},
    ),
    "gpu-manager": (
        pod("p", resources={"limits": {"tencent.com/vcuda-core": "200", "tencent.com/vcuda-memory": "60"}}),
        {"fracgpu.io/replica": "8"},
    ),
}  # dialect -> a pod in it, the limits that it is stored with


@pytest.mark.parametrize(("manifest", "want"), DIALECTS.values(), ids=DIALECTS)
def test_a_pod_in_another_tools_language_is_stored_in_ours(
    admission: Api, manifest: dict[str, Any], want: dict[str, str]
) -> None:
    status, stored = admission.call("POST", f"{PODS}?dryRun=All", manifest)

    assert status == 201, stored
    resources = stored["spec"]["containers"][0]["resources"]
    assert resources["limits"] == want
    assert resources["requests"] == want
    assert json.loads(stored["metadata"]["annotations"]["fracgpu.io/understood"])["dialect"] in DIALECTS


def test_plain_nvidia_gpus_are_left_alone(admission: Api) -> None:
    manifest = pod("p", resources={"limits": {"nvidia.com/gpu": "1"}})

    status, stored = admission.call("POST", f"{PODS}?dryRun=All", manifest)

    assert status == 201
    assert stored["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert "annotations" not in stored["metadata"]


@pytest.mark.parametrize("kind", [kind for _, _, kind in WORKLOADS])
def test_a_mistake_in_a_template_is_a_warning_when_it_is_applied(admission: Api, kind: str) -> None:
    manifest = workload(kind, pod("p", {"fracgpu.io/gpu-memory": "4GB"}))

    status, warnings = admission.warnings_of(path_of_kind(kind), manifest)

    assert status == 201
    told = " ".join(warnings)
    assert f"the pods of this {kind} will be refused: annotation fracgpu.io/gpu-memory is '4GB'" in told
    assert told.endswith('for example "4Gi"'), "all of the sentence came through"


@pytest.mark.parametrize("kind", [kind for _, _, kind in WORKLOADS])
def test_a_template_without_mistakes_is_applied_in_silence(admission: Api, kind: str) -> None:
    manifest = workload(kind, pod("p", {"fracgpu.io/gpu-memory": "4Gi"}))

    assert admission.warnings_of(path_of_kind(kind), manifest) == (201, [])


def test_an_annotation_on_the_workload_itself_is_a_warning(admission: Api) -> None:
    manifest = workload("CronJob", pod("p"), annotations={"fracgpu.io/gpu-memory": "4Gi"})

    status, warnings = admission.warnings_of(path_of_kind("CronJob"), manifest)

    assert status == 201
    assert "write it into spec.jobTemplate.spec.template.metadata.annotations" in " ".join(warnings)


def test_a_pod_larger_than_any_gpu_of_the_cluster_is_let_in_with_a_warning(
    plane: RealControlPlane, api: Api, tmp_path: Path
) -> None:
    node = gpunode("node-large")
    largest = max(gpu["units"] for gpu in node["spec"]["gpus"]) * node["spec"]["memoryUnitMiB"]
    api.call("POST", "/apis/fracgpu.io/v1alpha1/gpunodes", node)
    with webhook_process(tmp_path, f"--kubeconfig={plane.kubeconfig()}") as (url, authority):
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)

        def answer(size: str) -> dict[str, Any]:
            body = json.dumps(review(pod("p", {"fracgpu.io/gpu-memory": size}))).encode()
            with urllib.request.urlopen(urllib.request.Request(f"{url}/mutate", body), context=trusting) as response:
                found: dict[str, Any] = json.load(response)["response"]
            return found

        api.wait_until(lambda: "warnings" in answer("15Ti"))
        assert answer("15Ti")["allowed"]
        assert "the largest GPU of the cluster has" in " ".join(answer("15Ti")["warnings"])
        assert "warnings" not in answer(f"{largest}Mi")
    api.call("DELETE", "/apis/fracgpu.io/v1alpha1/gpunodes/node-large")
