"""The policy of void-visible-devices.yaml and the real webhook: the policy looks again when the webhook is done."""

import pytest

from fracgpu.names import ANNOTATION_CONTAINER, ANNOTATION_GPU_MEMORY, RESOURCE_MEMORY
from tests.deploy.conftest import Api
from tests.deploy.test_void_devices_policy import DRY, HELD, VOID, container, env_of, opt_in, pod

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("admission")]


@pytest.fixture(scope="module")
def cluster(api: Api) -> Api:
    opt_in(api)
    return api


@pytest.mark.parametrize("chosen", ["main", "second"])
def test_the_container_that_gets_the_gpu_stays_and_the_others_see_none(cluster: Api, chosen: str) -> None:
    annotations = {ANNOTATION_GPU_MEMORY: "4Gi", ANNOTATION_CONTAINER: chosen}
    manifest = pod(container(), container("second"), initContainers=[container("init")], annotations=annotations)

    status, stored = cluster.call("POST", HELD + DRY, manifest)

    assert status == 201, stored
    listed = stored["spec"]["containers"] + stored["spec"]["initContainers"]
    assert {made["name"]: made.get("env") for made in listed} == {"main": [VOID], "second": [VOID], "init": [VOID]} | {
        chosen: None
    }
    limits = {made["name"]: made["resources"].get("limits") for made in listed}
    assert limits == {"main": None, "second": None, "init": None} | {chosen: {RESOURCE_MEMORY: "8"}}


def test_a_pod_without_a_gpu_needs_no_webhook(cluster: Api) -> None:
    assert env_of(cluster, pod(container())) == {"main": [VOID]}
