"""The smallest JSON Patch (RFC 6902) that gives a container its limit.

Pure. Requests are written beside limits: kube-apiserver would default them after a webhook's patch as it does before
the first one (apiserver's mutating dispatcher, then SetDefaults_Pod), but a patch that leaves nothing to a later step
is the same everywhere.
"""

from msgspec import Struct

from webhook.mutation import Limit


class Operation(Struct, frozen=True):
    """One step of a JSON Patch; ``add`` also replaces a member that is there, such as an explicit null."""

    op: str
    path: str
    value: str | dict[str, str] | dict[str, dict[str, str]]


def patch_for(limit: Limit) -> list[Operation]:
    """What is missing of the limit and of the equal request; nothing that the pod has is touched."""
    path = f"/spec/{limit.field}/{limit.index}/resources"
    amounts = {limit.resource: str(limit.amount)}
    resources = limit.container.resources
    if resources is None:
        return [Operation("add", path, {"limits": amounts, "requests": amounts})]
    operations = []
    for member, present in (("limits", resources.limits), ("requests", resources.requests)):
        if present is None:
            operations.append(Operation("add", f"{path}/{member}", amounts))
        elif limit.resource not in present:
            key = limit.resource.replace("~", "~0").replace("/", "~1")  # RFC 6901
            operations.append(Operation("add", f"{path}/{member}/{key}", amounts[limit.resource]))
    return operations
