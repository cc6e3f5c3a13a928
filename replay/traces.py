"""Reads traces in the columns of Alibaba's OpenB (clusterdata, cluster-trace-gpu-v2023)."""

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

from fracgpu.errors import SettingError
from fracgpu.hosts import HostAmount
from replay.workloads import GPU_PARTS, TraceNode, TracePod

_NODE_COLUMNS: Final = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
_POD_COLUMNS: Final = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
_MAX: Final = 2**40
_MAX_GPUS: Final = 64
_MAX_MODELS: Final = 32
_MAX_MODEL: Final = 60

_T = TypeVar("_T")


def read_nodes(file: Path) -> list[TraceNode]:
    """Read nodes: name (`sn`), `cpu_milli`, `memory_mib`, number of GPUs (`gpu`) and `model`.

    Raises:
        SettingError: the file cannot be read, or a line is not one.
    """

    def node(row: Mapping[str, str]) -> TraceNode:
        host = HostAmount(_number(row, "cpu_milli"), _number(row, "memory_mib"))
        return TraceNode(row["sn"], host, _number(row, "gpu", most=_MAX_GPUS), row["model"].strip())

    found = list(_rows(file, _NODE_COLUMNS, node))
    if len({each.name for each in found}) < len(found):
        raise SettingError(f"{file} has two nodes of the same name (sn); each node is one line")
    if not any(each.gpus for each in found):
        raise SettingError(
            f"{file} has no node with a GPU; at least one line must have a number above 0 in the column gpu"
        )
    return found


def read_pods(file: Path) -> list[TracePod]:
    """Read pods: `name`, `cpu_milli`, `memory_mib`, `num_gpu`, `gpu_milli` (of each GPU) and perhaps `gpu_spec`.

    Several GPUs are whole ones. `gpu_spec` are acceptable models with ``|`` between them.

    Raises:
        SettingError: the file cannot be read, or a line is not one.
    """

    def pod(row: Mapping[str, str]) -> TracePod:
        host = HostAmount(_number(row, "cpu_milli"), _number(row, "memory_mib"))
        gpus = _number(row, "num_gpu", most=_MAX_GPUS)
        milli = GPU_PARTS if gpus > 1 else _number(row, "gpu_milli", most=GPU_PARTS) if gpus else 0
        if gpus and not milli:
            raise ValueError("gpu_milli is 0 with a GPU; it is the part of the GPU in thousandths, from 1 to 1000")
        models = tuple(model for part in (row.get("gpu_spec") or "").split("|") if (model := part.strip()))
        if len(models) > _MAX_MODELS or any(len(model) > _MAX_MODEL for model in models):
            raise ValueError(
                f"gpu_spec is {row['gpu_spec'][:40]!r}; it is at most {_MAX_MODELS} models of at most {_MAX_MODEL} "
                "characters, with | between them"
            )
        return TracePod(row["name"], host, gpus, milli, models if gpus else ())

    found = list(_rows(file, _POD_COLUMNS, pod))
    if not found:
        raise SettingError(f"{file} has no pods; it needs at least one line below its heading")
    return found


def _rows(file: Path, columns: tuple[str, ...], read: Callable[[Mapping[str, str]], _T]) -> Iterator[_T]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            if missing := [column for column in columns if column not in (reader.fieldnames or ())]:
                raise SettingError(
                    f"{file} has no column {missing[0]}; it needs {', '.join(columns)}, as the OpenB trace has them"
                )
            for row in reader:
                try:
                    yield read({key: value or "" for key, value in row.items() if key is not None})
                except ValueError as exc:
                    raise SettingError(f"{file} line {reader.line_num}: {exc}") from exc
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise SettingError(f"{file} cannot be read: {exc}") from exc


def _number(row: Mapping[str, str], column: str, *, most: int = _MAX) -> int:
    text = row[column].strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 13 and int(text) <= most):
        raise ValueError(f"{column} is {text[:40]!r}; it is a whole number from 0 to {most}")
    return int(text)
