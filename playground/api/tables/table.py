"""The ``meta.k8s.io`` Table that ``kubectl get`` asks for: objects as rows, in place of a list or of one object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from playground.api.errors import bad_request
from playground.api.resources import Resource
from playground.api.tables import custom, everyday, nodes, pods, workloads
from playground.api.tables.columns import Printer
from playground.cluster import JsonObject

_PRINTERS: Mapping[str, Printer] = {
    "pods": pods.PODS,
    "nodes": nodes.NODES,
    "events": everyday.EVENTS,
    "namespaces": everyday.NAMESPACES,
    "configmaps": everyday.CONFIGMAPS,
    "secrets": everyday.SECRETS,
    "serviceaccounts": everyday.SERVICEACCOUNTS,
    "services": everyday.SERVICES,
    "persistentvolumeclaims": everyday.PERSISTENTVOLUMECLAIMS,
    "poddisruptionbudgets": everyday.PODDISRUPTIONBUDGETS,
    "deployments": workloads.DEPLOYMENTS,
    "replicasets": workloads.REPLICASETS,
    "statefulsets": workloads.STATEFULSETS,
    "jobs": workloads.JOBS,
}
_INCLUDED = ("Metadata", "None", "Object")
_VERSIONS = ("v1", "v1beta1")


@dataclass(frozen=True, slots=True)
class TableForm:
    """A request for tables: which version of them, and what of the object stands in each row."""

    version: str
    include: str

    def table(
        self, resource: Resource, objects: Iterable[JsonObject], *, metadata: JsonObject, now: datetime, heads: bool
    ) -> JsonObject:
        """Return the table of some objects of one kind; ``heads`` tells whether it names its columns."""
        printer = _printer(resource.plural)
        columns = [
            {
                "name": column.name,
                "type": column.type,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            }
            for column in printer.columns
        ]
        return {
            "kind": "Table",
            "apiVersion": f"meta.k8s.io/{self.version}",
            "metadata": metadata,
            "columnDefinitions": columns if heads else None,
            "rows": [{"cells": printer.cells(obj, now), "object": self._object(obj)} for obj in objects],
        }

    def table_of_one(self, resource: Resource, obj: JsonObject, *, now: datetime, heads: bool = True) -> JsonObject:
        """Return the table of one object."""
        metadata = {"resourceVersion": obj["metadata"]["resourceVersion"]}
        return self.table(resource, [obj], metadata=metadata, now=now, heads=heads)

    def _object(self, obj: JsonObject) -> Any:
        if self.include == "None":
            return None
        if self.include == "Object":
            return obj
        kind = {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{self.version}"}
        return {**kind, "metadata": obj["metadata"]}


def requested_table(accept: str, *, include: str) -> TableForm | None:
    """Read an Accept header: the first JSON form in it that is known decides; None for plain objects.

    Raises:
        ApiStatusError: 400 for an ``includeObject`` that is none.
    """
    for entry in accept.split(","):
        media_type, *parameters = (part.strip() for part in entry.split(";"))
        asked = dict(part.partition("=")[::2] for part in parameters)
        if media_type not in ("application/json", "application/*", "*/*"):
            continue
        if asked.get("as") == "Table" and asked.get("g") == "meta.k8s.io" and asked.get("v") in _VERSIONS:
            if include and include not in _INCLUDED:
                raise bad_request(f'unrecognized includeObject value: "{include}"')
            return TableForm(asked["v"], include or "Metadata")
        if "as" not in asked:
            return None
    return None


@cache
def _printer(plural: str) -> Printer:
    return _PRINTERS.get(plural) or custom.printer(plural)
