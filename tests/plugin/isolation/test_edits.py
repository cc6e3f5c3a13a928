"""What each mechanism changes of a container."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from fracgpu.errors import SettingError
from plugin.handout import LentShare, Mount
from plugin.isolation.driver_limit import DriverLimit, names_hook
from plugin.isolation.none import Advisory
from plugin.isolation.preload import Preload, PreloadTemplate
from tests.plugin.isolation.builders import A, B, share

HAMI = PreloadTemplate(
    Path("/opt/hami/libvgpu.so"),
    env=(
        "CUDA_DEVICE_MEMORY_LIMIT_{n}={memory_mib}m",
        "CUDA_DEVICE_SM_LIMIT={core_percent}",
        "CUDA_DEVICE_MEMORY_SHARED_CACHE=/tmp/fracgpu.cache",
    ),
    mounts=("/opt/hami/{gpu_count}:/etc/hami", "/var/lib/hami:/tmp/vgpulock:rw"),
)
TWO = [share(B, memory=8192, seats=1, of_seats=2, index=1), share(A, memory=4096, seats=1, of_seats=4, index=0)]


@pytest.mark.parametrize(
    ("shares", "want"),
    [
        pytest.param([share(memory=4096)], "4096", id="one GPU"),
        pytest.param([share(A, memory=512), share(B, memory=512, index=1)], "512", id="two GPUs, one value for both"),
        pytest.param(TWO, "4096", id="the smallest where they differ"),
    ],
)
def test_the_drivers_limit_is_a_whole_number_of_mib(shares: Sequence[LentShare], want: str) -> None:
    edits = DriverLimit().edits(shares, neighbours={})
    assert edits.env == {"NVIDIA_GPU_MEMORY_REQUEST": want, "NVIDIA_GPU_MEMORY_LIMIT": want}


def test_advice_changes_nothing() -> None:
    edits = Advisory().edits([share()], neighbours={})
    assert (dict(edits.env), edits.mounts) == ({}, ())


def test_the_documented_configuration_for_hami_core() -> None:
    edits = Preload(HAMI).edits(TWO, neighbours={})
    assert edits.env == {
        "LD_PRELOAD": "/opt/hami/libvgpu.so",
        "CUDA_DEVICE_MEMORY_LIMIT_0": "4096m",
        "CUDA_DEVICE_MEMORY_LIMIT_1": "8192m",
        "CUDA_DEVICE_SM_LIMIT": "25",
        "CUDA_DEVICE_MEMORY_SHARED_CACHE": "/tmp/fracgpu.cache",
    }
    assert edits.mounts == (
        Mount("/opt/hami/libvgpu.so", "/opt/hami/libvgpu.so", read_only=True),
        Mount("/opt/hami/2", "/etc/hami", read_only=True),
        Mount("/var/lib/hami", "/tmp/vgpulock", read_only=False),
    )


def test_every_placeholder() -> None:
    template = PreloadTemplate(
        Path("/opt/limits.so"),
        env=(
            "ALL={memory_mib} {memory_bytes} {core_percent} {gpu_count} {gpu_uuids} {gpu_indexes}",
            "GPU_{n}_IS={n} {gpu_uuid} {gpu_index} {memory_mib} {memory_bytes} {core_percent} {gpu_count}",
        ),
        mounts=(),
    )
    assert Preload(template).edits(TWO, neighbours={}).env == {
        "LD_PRELOAD": "/opt/limits.so",
        "ALL": "4096 4294967296 25 2 GPU-a,GPU-b 0,1",
        "GPU_0_IS": "0 GPU-a 0 4096 4294967296 25 2",
        "GPU_1_IS": "1 GPU-b 1 8192 8589934592 50 2",
    }


def test_the_loaders_list_takes_the_place_of_ld_preload() -> None:
    mounts = ("/opt/limits.preload:/etc/ld.so.preload",)
    preload = Preload(PreloadTemplate(Path("/opt/limits.so"), env=(), mounts=mounts))
    assert "LD_PRELOAD" not in preload.edits([share()], neighbours={}).env
    assert "LD_PRELOAD" not in preload.status.message
    assert "LD_PRELOAD" in Preload(HAMI).status.message


@pytest.mark.parametrize(
    ("library", "env", "mounts", "want"),
    [
        pytest.param("limits.so", (), (), "absolute path", id="relative library"),
        pytest.param("/opt/my limits.so", (), (), "without spaces", id="a space ends a name in LD_PRELOAD"),
        pytest.param("/l.so", ("LIMIT",), (), "NAME=TEMPLATE", id="no value"),
        pytest.param("/l.so", ("1LIMIT=x",), (), "NAME=TEMPLATE", id="not a name"),
        pytest.param("/l.so", ("LIMIT={memory}",), (), r"\{memory\}.*allowed there are \{memory_mib\}", id="unknown"),
        pytest.param("/l.so", ("LIMIT={gpu_uuid}",), (), "with {n} in a variable's name", id="of which GPU?"),
        pytest.param("/l.so", (), ("/a",), "HOST_PATH:CONTAINER_PATH", id="one path"),
        pytest.param("/l.so", (), ("/a:b",), "absolute paths", id="relative path"),
        pytest.param("/l.so", (), ("/a:/b:wr",), "and :rw", id="unknown mode"),
        pytest.param("/l.so", (), ("/a/{n}:/b",), r"\{n\}", id="a mount is for all GPUs"),
    ],
)
def test_a_mistake_in_the_templates_is_named(
    library: str, env: tuple[str, ...], mounts: tuple[str, ...], want: str
) -> None:
    with pytest.raises(SettingError, match=want):
        PreloadTemplate(Path(library), env=env, mounts=mounts)


HOOKS = [{"hookName": "createRuntime", "args": ["nvidia-cdi-hook", "apply-cuda-memory-limits", "--gpu-id", "GPU-a"]}]


@pytest.mark.parametrize(
    ("name", "text", "want"),
    [
        pytest.param(
            "nvidia.json",
            json.dumps({"cdiVersion": "0.7.0", "kind": "nvidia.com/gpu", "containerEdits": {"hooks": HOOKS}}),
            True,
            id="JSON in one line",
        ),
        pytest.param(
            "nvidia.yaml",
            "---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- hooks: [apply-cuda-memory-limits]\n",
            True,
            id="YAML",
        ),
        pytest.param(
            "other.yaml", "kind: k8s.device-plugin.nvidia.com/gpu\nargs: [apply-cuda-memory-limits]\n", False, id="kind"
        ),
        pytest.param("old.json", '{"kind": "nvidia.com/gpu", "hooks": ["update-ldcache"]}', False, id="older toolkit"),
        pytest.param("nvidia.json.bak", '{"kind": "nvidia.com/gpu"}apply-cuda-memory-limits', False, id="not read"),
    ],
)
def test_the_hook_is_found_in_our_cdi_specification(tmp_path: Path, name: str, text: str, *, want: bool) -> None:
    (tmp_path / name).write_text(text)
    assert names_hook([tmp_path / "absent", tmp_path]) is want
