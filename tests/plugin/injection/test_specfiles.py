from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from fracgpu.errors import UnavailableError
from plugin.injection.specfiles import OWN_FILE, OwnSpecFile, find_provided
from tests.plugin.injection.host import foreign

ONE = foreign("GPU-a", "GPU-b")


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow beyond 64 bytes: as near to a full disk as any user can come."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    file = OwnSpecFile(tmp_path / "run/cdi")
    assert file.read() is None
    file.write(ONE)
    assert file.read() == ONE
    assert [path.name for path in file.path.parent.iterdir()] == [OWN_FILE] == ["fracgpu.io-gpu.json"]
    file.remove()
    file.remove()
    assert file.read() is None


def test_on_a_full_disk_the_old_stays_and_no_draft_is_left(tmp_path: Path) -> None:
    file = OwnSpecFile(tmp_path)
    file.write(ONE)
    with full_disk(), pytest.raises(UnavailableError, match=r"fracgpu\.io-gpu\.json cannot be written \(.*too large"):
        file.write(foreign("GPU-c"))
    assert file.read() == ONE
    assert [path.name for path in tmp_path.iterdir()] == [OWN_FILE]
    file.write(foreign("GPU-c"))
    assert file.read() == foreign("GPU-c")


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "cdi").write_text("")
    file = OwnSpecFile(tmp_path / "cdi")
    with pytest.raises(UnavailableError, match="cdi_spec_dir"):
        file.write(ONE)
    with pytest.raises(UnavailableError, match="no longer needed"):
        file.remove()
    assert file.read() is None


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_devices_of_others_are_found(tmp_path: Path, suffix: str) -> None:
    text = json.dumps(ONE) if suffix == "json" else yaml.safe_dump(ONE)
    (tmp_path / f"nvidia.{suffix}").write_text(text)
    assert find_provided([tmp_path / "absent", tmp_path]).names == {"GPU-a", "GPU-b"}


def test_indexes_in_yaml_have_to_be_texts_as_for_the_runtime(tmp_path: Path) -> None:
    (tmp_path / "texts.yaml").write_text(yaml.safe_dump(foreign("0", "0:1")))
    (tmp_path / "numbers.yaml").write_text(yaml.safe_dump(foreign("0")).replace("'0'", "0"))
    found = find_provided([tmp_path])
    assert found.names == {"0", "0:1"}
    assert found.unreadable == (str(tmp_path / "numbers.yaml"),)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"{unclosed: [",
        b"---\na: 1\n---\nb: 2\n",
        b"!!python/object/apply:os.system ['true']",
        b"7",
        json.dumps(ONE | {"devices": []}).encode(),
        json.dumps(ONE | {"cdiVersion": 5}).encode(),
        json.dumps(ONE | {"devices": [{"name": "GPU-a"}]}).encode(),
        json.dumps(ONE | {"devices": [*ONE["devices"], ONE["devices"][0]]}).encode(),
    ],
    ids=["empty", "binary", "deep", "open", "two", "code", "number", "no devices", "version", "no edits", "twice"],
)
@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_what_a_runtime_cannot_use_counts_for_nothing(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"bad.{suffix}").write_bytes(content)
    (tmp_path / "good.json").write_text(json.dumps(foreign("GPU-c")))
    found = find_provided([tmp_path])
    assert found.names == {"GPU-c"}
    assert found.unreadable == (str(tmp_path / f"bad.{suffix}"),)


def test_what_is_no_specification_of_nvidias_gpus_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(json.dumps(foreign("GPU-a", kind="example.com/gpu")))
    (tmp_path / "draft.json.tmp").write_text(json.dumps(ONE))
    (tmp_path / "notes.yml").write_text(json.dumps(ONE))
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "folder.json/inner.json").write_text(json.dumps(ONE))
    assert find_provided([tmp_path]).names == frozenset()


def test_a_device_that_two_files_of_a_folder_define_is_nobodys(tmp_path: Path) -> None:
    for folder, names in (("a", ["GPU-a"]), ("b", ["GPU-a", "GPU-b"])):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.json").write_text(json.dumps(foreign(*names)))
    assert find_provided([tmp_path / "a", tmp_path / "b"]).names == {"GPU-a", "GPU-b"}
    (tmp_path / "b/y.json").write_text(json.dumps(foreign("GPU-a")))
    assert find_provided([tmp_path / "a", tmp_path / "b"]).names == {"GPU-b"}
