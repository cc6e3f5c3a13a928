"""What the API server fills into kinds that the playground only keeps: Namespaces, Services, Secrets, claims. Pure.

A Service gets an address from which nothing answers; a claim stays Pending, since nobody provisions volumes.
"""

from __future__ import annotations

import base64
import zlib

from playground.api.errors import FieldError, required
from playground.cluster import JsonObject


def default_namespace(obj: JsonObject) -> JsonObject:
    """Return a Namespace as the API server keeps it."""
    metadata = obj["metadata"]
    labels = {**metadata.get("labels", {}), "kubernetes.io/metadata.name": metadata.get("name", "")}
    spec = {"finalizers": ["kubernetes"], **obj.get("spec", {})}
    return {**obj, "metadata": {**metadata, "labels": labels}, "spec": spec}


def default_service(obj: JsonObject) -> JsonObject:
    """Return a Service with its defaults and, where its type has one, an address of the range 10.96.0.0/16."""
    spec: JsonObject = {"type": "ClusterIP", "sessionAffinity": "None", **obj.get("spec", {})}
    spec["ports"] = [
        {"protocol": "TCP", **port, "targetPort": port.get("targetPort", port["port"])}
        for port in spec.get("ports", [])
    ]
    if not spec["ports"]:
        del spec["ports"]
    if spec["type"] != "ExternalName":
        address = spec.get("clusterIP") or _address(obj["metadata"])
        spec = {
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            **spec,
        }
    return {**obj, "spec": spec}


def check_service(obj: JsonObject) -> list[FieldError]:
    """Check a Service, defaults filled in."""
    spec = obj["spec"]
    needs_ports = spec["type"] != "ExternalName" and spec.get("clusterIP") != "None"
    return [required("spec.ports")] if needs_ports and not spec.get("ports") else []


def default_secret(obj: JsonObject) -> JsonObject:
    """Return a Secret with its ``stringData`` encoded among its ``data``."""
    written = {key: base64.b64encode(text.encode()).decode() for key, text in obj.get("stringData", {}).items()}
    secret = {"type": "Opaque", **{field: value for field, value in obj.items() if field != "stringData"}}
    data = {**obj.get("data", {}), **written}
    return {**secret, "data": data} if data else secret


def default_claim(obj: JsonObject) -> JsonObject:
    """Return a PersistentVolumeClaim with its defaults."""
    return {**obj, "spec": {"volumeMode": "Filesystem", **obj.get("spec", {})}}


def _address(metadata: JsonObject) -> str:
    """The same for the same Service, whenever it is asked for; two Services may get the same one."""
    number = zlib.crc32(f"{metadata.get('namespace')}/{metadata.get('name')}".encode())
    return f"10.96.{number >> 8 & 255}.{number & 255}"
