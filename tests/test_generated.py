"""What is generated and checked in is what the generator makes now."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROTOS = ["fracgpu/kubelet/deviceplugin.proto", "fracgpu/kubelet/podresources.proto", "playground/node/cri.proto"]


@pytest.mark.parametrize("proto", PROTOS)
def test_stubs_are_current(proto: str, tmp_path: Path) -> None:
    command = (ROOT / "scripts" / "proto").read_text()
    assert "--python_out=. --grpc_python_out=." in command
    tools = Path(sys.executable).parent
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I."),
            f"--plugin=protoc-gen-mypy={tools / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={tools / 'protoc-gen-mypy_grpc'}",
            f"--python_out={tmp_path}",
            f"--grpc_python_out={tmp_path}",
            f"--mypy_out=quiet:{tmp_path}",
            f"--mypy_grpc_out=quiet:{tmp_path}",
            proto,
        ],
        cwd=ROOT,
        check=True,
    )
    made = sorted(tmp_path.rglob("*_pb2*"))
    assert len(made) == 4
    for path in made:
        assert path.read_text() == (ROOT / path.relative_to(tmp_path)).read_text(), f"run `make proto`: {path.name}"
