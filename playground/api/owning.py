"""Who belongs to whom: owner references, read and taken away. Nothing here deletes; that is a controller's work."""

from __future__ import annotations

from playground.api.resources import RESOURCES, Key
from playground.api.store import Store
from playground.cluster import JsonObject


def controller_of(obj: JsonObject) -> JsonObject | None:
    """The reference to the one owner that manages an object."""
    references: list[JsonObject] = obj["metadata"].get("ownerReferences", [])
    return next((reference for reference in references if reference.get("controller")), None)


def release_dependents(store: Store, owner_uid: str) -> None:
    """Take the references to an owner off everything that has one."""
    for resource in RESOURCES:
        for key, obj in store.list(resource).items():
            references = obj["metadata"].get("ownerReferences", [])
            kept = [reference for reference in references if reference.get("uid") != owner_uid]
            if kept != references:
                metadata = {name: value for name, value in obj["metadata"].items() if name != "ownerReferences"}
                store.update(
                    Key(resource, key.namespace, key.name),
                    {**obj, "metadata": {**metadata, **({"ownerReferences": kept} if kept else {})}},
                )
