"""Manifests from a directory to pods, or to what they are without controllers, in the order of the file names.

Whatever a person may have written, the result is objects to create and refusals to show: nothing in a file's text
raises. What an object means is left to the API server, what a workload means to ``workloads``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from playground.api.resources import RESOURCES, resource_of
from playground.cluster import JsonObject
from playground.workloads import WorkloadError, check_manifest, pods_of

SUFFIXES = (".yaml", ".yml", ".json")
MAX_NODES = 100_000
"""Values that a document may hold beyond what its text writes out: aliases make much of little."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that yields no pods: its name (the file's, if it has none) and why."""

    name: str
    message: str


@dataclass(frozen=True, slots=True)
class Manifests:
    """What a set of files says, in its order."""

    pods: tuple[JsonObject, ...]
    refused: tuple[Refused, ...]


@dataclass(frozen=True, slots=True)
class Objects:
    """What a set of files says as it is written, in its order: objects of kinds that the playground serves."""

    objects: tuple[JsonObject, ...]
    refused: tuple[Refused, ...]


def load(directory: Path) -> Manifests:
    """Read the manifests in a directory, not below it, as the pods that they come to.

    Raises:
        OSError: the directory cannot be read.
    """
    return expand(_texts(directory))


def load_objects(directory: Path) -> Objects:
    """Read the manifests in a directory, not below it, for a cluster that has controllers.

    Raises:
        OSError: the directory cannot be read.
    """
    found = [entry for file, text in _texts(directory) for entry in _entries(file, text, lambda one: [_served(one)])]
    return Objects(*_parted(found))


def expand(texts: Iterable[tuple[str, str]]) -> Manifests:
    """Turn the texts of files, given as (file name, text), into pods."""
    return Manifests(*_parted(entry for file, text in texts for entry in _entries(file, text, pods_of)))


def _texts(directory: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(path for path in directory.iterdir() if path.suffix in SUFFIXES and path.is_file()):
        yield path.name, path.read_bytes().decode(errors="replace")


def _parted(entries: Iterable[JsonObject | Refused]) -> tuple[tuple[JsonObject, ...], tuple[Refused, ...]]:
    found = list(entries)
    objects = tuple(entry for entry in found if not isinstance(entry, Refused))
    return objects, tuple(entry for entry in found if isinstance(entry, Refused))


def _served(manifest: JsonObject) -> JsonObject:
    """Return a manifest of a kind that is served, with a name; raise ``WorkloadError`` otherwise."""
    kind = manifest.get("kind")
    resource = resource_of(kind) if isinstance(kind, str) else None
    if resource is None:
        shown = f"kind {kind}" if kind else "a manifest without kind"
        served = ", ".join(sorted(resource.kind for resource in RESOURCES.values()))
        raise WorkloadError(f"{shown} is not known to the playground; it has {served}")
    check_manifest(manifest, version=resource.api_version)
    return manifest


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: what looks like a date stays text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the parent's class attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge what ``<<`` names, within bounds: merges of merges multiply as aliases of aliases do."""
        super().flatten_mapping(node)
        if len(node.value) > MAX_NODES:
            raise ValueError(_TOO_MANY)


Take = Callable[[JsonObject], list[JsonObject]]
"""Make of a manifest what is to be created, or raise ``WorkloadError``."""


def _entries(file: str, text: str, take: Take) -> Iterator[JsonObject | Refused]:
    documents = yaml.load_all(text, Loader=_Loader)
    while True:
        try:
            document = next(documents, _END)
            if document is _END:
                return
            yield from _expand_document(file, _Plain(MAX_NODES + len(text)).convert(document), take)
        except yaml.YAMLError as exc:
            yield Refused(file, f"{file} is not valid YAML: {' '.join(str(exc).split())}")
            return
        except RecursionError:
            yield Refused(file, f"{file} is nested too deeply")
            return
        except ValueError as exc:
            yield Refused(file, f"{file}: {exc}")


_END: Any = object()
_TOO_MANY = f"its aliases stand for more than {MAX_NODES} values"


def _expand_document(file: str, document: Any, take: Take) -> Iterator[JsonObject | Refused]:
    if document is None:
        return  # an empty document, as between two separators
    if not isinstance(document, dict):
        what = type(document).__name__
        yield Refused(file, f"{file}: a manifest is an object with apiVersion, kind and metadata, not a {what}")
        return
    if document.get("kind") == "List":
        items = document.get("items")
        if not isinstance(items, list):
            yield Refused(file, f"{file}: items of a List must be a list of manifests")
            return
        for item in items:
            yield from _expand_document(file, item, take)
        return
    try:
        yield from take(document)
    except WorkloadError as exc:
        yield Refused(_name(document) or file, f"{file}: {exc}")


def _name(document: JsonObject) -> str:
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else ""


class _Plain:
    """Turns one document's values into what JSON has, up to so many of them."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def convert(self, value: Any) -> Any:
        """Return a YAML value as JSON would have it, keys as text; raise ValueError where JSON has no such value."""
        self._left -= 1
        if self._left < 0:
            raise ValueError(_TOO_MANY)
        if isinstance(value, dict):
            return {_key(name): self.convert(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.convert(inner) for inner in value]
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} is not a number that JSON can write")
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise ValueError("a number has more than 64 bits")
        if isinstance(value, str):
            return _text(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        raise ValueError(f"a manifest cannot hold a {type(value).__name__}")


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{value!r} is not valid Unicode") from None
    return value


def _key(name: Any) -> str:
    if isinstance(name, bool):
        return str(name).lower()
    if isinstance(name, str | int | float):
        return _text(str(name))
    raise ValueError(f"a key must be text, not {name!r}")
