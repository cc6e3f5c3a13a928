"""`kubectl apply` of a pod that exists already, behind the webhook of a real cluster: as docs/dialects.md says."""

from pathlib import Path

import pytest

from tests.deploy.conftest import Api
from tests.playground.kubectl import KUBECTL, MISSING, Kubectl
from tests.realcluster import RealControlPlane

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(KUBECTL is None, reason=MISSING)]

EXAMPLES = Path(__file__).parents[2] / "examples"
FORBIDDEN = 'The Pod "from-hami" is invalid: spec: Forbidden: pod updates may not change fields other than'


@pytest.fixture
def kubectl(admission: Api, plane: RealControlPlane, tmp_path: Path) -> Kubectl:
    return Kubectl(plane.kubeconfig().read_text(), tmp_path)


async def test_a_pod_in_another_tools_resources_has_to_be_replaced(kubectl: Kubectl) -> None:
    example = str(EXAMPLES / "09-from-hami.yaml")
    assert await kubectl("apply", "-f", example) == "pod/from-hami created\n"
    assert (await kubectl.refused("apply", "-f", example)).startswith(FORBIDDEN)
    assert (await kubectl.refused("apply", "--server-side", "--force-conflicts", "-f", example)).startswith(FORBIDDEN)
    replaced = await kubectl("replace", "--force", "--grace-period=0", "-f", example)
    assert replaced.endswith("pod/from-hami replaced\n")


@pytest.mark.parametrize("name", ["chat", "vision"])
async def test_a_pod_in_our_annotations_is_unchanged(kubectl: Kubectl, name: str) -> None:
    (example,) = EXAMPLES.glob(f"*-{name}.yaml")
    assert await kubectl("apply", "-f", str(example)) == f"pod/{name} created\n"
    assert await kubectl("apply", "-f", str(example)) == f"pod/{name} unchanged\n"
