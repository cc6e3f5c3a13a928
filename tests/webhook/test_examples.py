"""What the webhook makes of the manifests in examples/, which the demo and the README show."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fracgpu.requests import ContainerRequest, request_of
from tests.webhook.builders import decide, typed

EXAMPLES = Path(__file__).parents[2] / "examples"

WANT: dict[str, ContainerRequest | str] = {
    "01-chat.yaml": ContainerRequest("server", 1, units=32, seats=0),
    "02-embeddings.yaml": ContainerRequest("server", 1, units=4, seats=0),
    "03-notebook.yaml": ContainerRequest("jupyter", 1, units=0, seats=1, replicas=4),
    "04-vision.yaml": ContainerRequest("model", 1, units=12, seats=0),
    "05-training.yaml": ContainerRequest("trainer", 2, units=40, seats=0),
    "06-transcription.yaml": ContainerRequest("whisper", 1, units=6, seats=0),
    "07-too-large.yaml": ContainerRequest("server", 1, units=96, seats=0),
    "08-mistyped.yaml": "annotation fracgpu.io/gpu-memory is '4GB'",
    "09-from-hami.yaml": ContainerRequest("llm", 1, units=6, seats=0),
}  # file -> what its pods ask for, or how the refusal begins


def test_every_example_is_known_here() -> None:
    assert sorted(path.name for path in EXAMPLES.iterdir()) == sorted(WANT)


@pytest.mark.parametrize(("name", "want"), WANT.items(), ids=WANT)
def test_example(name: str, want: ContainerRequest | str) -> None:
    manifest: dict[str, Any] = yaml.safe_load((EXAMPLES / name).read_text())
    pod = manifest["spec"]["template"] if manifest["kind"] == "Deployment" else manifest

    decided = decide(pod)

    if isinstance(want, str):
        assert decided.refusal.startswith(want)
        return
    assert decided.refusal == ""
    request = request_of(typed(decided.manifest))
    assert request is not None
    assert request.containers == (want,)
