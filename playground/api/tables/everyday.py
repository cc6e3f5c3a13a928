"""Events, namespaces and what is only kept (Services, ConfigMaps, Secrets, claims, budgets) in tables."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from playground.api.tables.columns import AGE, NAME, NONE, UNKNOWN, Column, Printer, age_of, name_of, since, wide
from playground.cluster import JsonObject

_ACCESS_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def _event(obj: JsonObject, now: datetime) -> list[Any]:
    about, source = obj.get("involvedObject", {}), obj.get("source", {})
    first = obj.get("firstTimestamp") or obj.get("eventTime")
    series = obj.get("series") or {}
    last = series.get("lastObservedTime") or obj.get("lastTimestamp") or first
    kind = str(about.get("kind", "")).lower()
    component = source.get("component") or obj.get("reportingComponent", "")
    host = source.get("host") or ("" if source.get("component") else obj.get("reportingInstance", ""))
    return [
        since(last, now),
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{kind}/{about['name']}" if about.get("name") else kind,
        about.get("fieldPath", ""),
        f"{component}, {host}" if host else component,
        str(obj.get("message", "")).strip(),
        since(first, now),
        series.get("count") or obj.get("count") or 1,
        name_of(obj),
    ]


def _namespace(obj: JsonObject, now: datetime) -> list[Any]:
    return [name_of(obj), obj.get("status", {}).get("phase", ""), age_of(obj, now)]


def _config_map(obj: JsonObject, now: datetime) -> list[Any]:
    return [name_of(obj), len(obj.get("data", {})) + len(obj.get("binaryData", {})), age_of(obj, now)]


def _secret(obj: JsonObject, now: datetime) -> list[Any]:
    return [name_of(obj), obj.get("type", ""), len(obj.get("data", {})), age_of(obj, now)]


def _service_account(obj: JsonObject, now: datetime) -> list[Any]:
    return [name_of(obj), age_of(obj, now)]


def _service(obj: JsonObject, now: datetime) -> list[Any]:
    spec = obj.get("spec", {})
    ports = ",".join(
        f"{port['port']}{':' + str(port['nodePort']) if port.get('nodePort') else ''}/{port.get('protocol', 'TCP')}"
        for port in spec.get("ports", [])
    )
    selector = ",".join(f"{label}={value}" for label, value in sorted(spec.get("selector", {}).items()))
    return [
        name_of(obj),
        spec.get("type", ""),
        spec.get("clusterIP") or NONE,
        _external_address(spec),
        ports or NONE,
        age_of(obj, now),
        selector or NONE,
    ]


def _claim(obj: JsonObject, now: datetime) -> list[Any]:
    spec, status = obj.get("spec", {}), obj.get("status", {})
    phase = "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", "")
    volume = spec.get("volumeName", "")
    modes = ",".join(_ACCESS_MODES.get(mode, mode) for mode in status.get("accessModes", [])) if volume else ""
    return [
        name_of(obj),
        phase,
        volume,
        status.get("capacity", {}).get("storage", "0") if volume else "",
        modes,
        spec.get("storageClassName", ""),
        status.get("currentVolumeAttributesClassName") or "<unset>",
        age_of(obj, now),
        spec.get("volumeMode") or "<unset>",
    ]


def _budget(obj: JsonObject, now: datetime) -> list[Any]:
    spec = obj.get("spec", {})
    limits = ["N/A" if spec.get(field) is None else str(spec[field]) for field in ("minAvailable", "maxUnavailable")]
    return [name_of(obj), *limits, obj.get("status", {}).get("disruptionsAllowed", 0), age_of(obj, now)]


EVENTS = Printer(
    (
        *(Column(name) for name in ("Last Seen", "Type", "Reason", "Object")),
        *(wide("Subobject"), wide("Source")),
        Column("Message"),
        *(wide("First Seen"), wide("Count")),
        Column("Name", format="name", priority=1),
    ),
    _event,
)
NAMESPACES = Printer((NAME, Column("Status"), AGE), _namespace)
CONFIGMAPS = Printer((NAME, Column("Data"), AGE), _config_map)
SECRETS = Printer((NAME, Column("Type"), Column("Data"), AGE), _secret)
SERVICEACCOUNTS = Printer((NAME, AGE), _service_account)
SERVICES = Printer(
    (
        NAME,
        *(Column(name) for name in ("Type", "Cluster-IP", "External-IP", "Port(s)")),
        AGE,
        wide("Selector"),
    ),
    _service,
)
PERSISTENTVOLUMECLAIMS = Printer(
    (
        NAME,
        *(Column(name) for name in ("Status", "Volume", "Capacity", "Access Modes", "StorageClass")),
        Column("VolumeAttributesClass"),
        AGE,
        wide("VolumeMode"),
    ),
    _claim,
)
PODDISRUPTIONBUDGETS = Printer(
    (
        NAME,
        Column("Min Available"),
        Column("Max Unavailable"),
        Column("Allowed Disruptions", type="integer"),
        AGE,
    ),
    _budget,
)


def _external_address(spec: JsonObject) -> str:
    if spec.get("externalIPs"):
        return ",".join(map(str, spec["externalIPs"]))
    names = {"ExternalName": str(spec.get("externalName", "")), "LoadBalancer": "<pending>"}
    return names.get(spec.get("type", "ClusterIP"), NONE if spec.get("type") else UNKNOWN)
