"""What evicting a pod asks of the disruption budgets: pure.

The rules are kube-apiserver's: one that has ended or waits to start, or is being deleted, needs no leave; a pod with
several budgets cannot be evicted. Left out: budgets whose controller lags behind, and the policy for unhealthy pods.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fracgpu.disruption import PodDisruptionBudget
from fracgpu.pods import Pod
from playground.api.errors import bad_request, internal
from playground.api.resources import Key
from playground.cluster import ApiStatusError, JsonObject


def check_eviction(key: Key, eviction: JsonObject) -> tuple[str, int | None]:
    """Read an Eviction: the UID that it insists on (or none), and the grace period in seconds (or the pod's own).

    Raises:
        ApiStatusError: 400 for one that cannot be read.
    """
    if (eviction.get("metadata") or {}).get("name", key.name) != key.name:
        raise bad_request("name in URL does not match name in Eviction object")
    options = eviction.get("deleteOptions") or {}
    return (options.get("preconditions") or {}).get("uid") or "", options.get("gracePeriodSeconds")


def budget_after(pod: JsonObject, budgets: Iterable[JsonObject], *, time: str) -> JsonObject | None:
    """Return the pod's budget with one disruption used up, or None if it needs none; ``time`` is now.

    Raises:
        ApiStatusError: 429 if the budget allows no disruption, 500 if the pod has several.
    """
    if pod["status"].get("phase") in ("Pending", "Succeeded", "Failed") or "deletionTimestamp" in pod["metadata"]:
        return None
    read = msgspec.convert(pod, Pod)
    mine = [budget for budget in budgets if msgspec.convert(budget, PodDisruptionBudget).selects(read)]
    if not mine:
        return None
    if len(mine) > 1:
        raise internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    budget, status = mine[0], mine[0].get("status") or {}
    name, allowed = budget["metadata"]["name"], status.get("disruptionsAllowed", 0)
    if allowed <= 0:
        needs, has = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
        why = f"The disruption budget {name} needs {needs} healthy pods and has {has} currently"
        raise ApiStatusError(
            429,
            "TooManyRequests",
            "Cannot evict pod as it would violate the pod's disruption budget.",
            details={"causes": [{"reason": "DisruptionBudget", "message": why}]},
        )
    disrupted = {**(status.get("disruptedPods") or {}), pod["metadata"]["name"]: time}
    return {**budget, "status": {**status, "disruptionsAllowed": allowed - 1, "disruptedPods": disrupted}}
