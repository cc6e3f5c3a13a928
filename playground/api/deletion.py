"""What deleting a pod means: a bound pod is marked and waits for its kubelet, any other goes at once.

Pure. The rules are kube-apiserver's (seen on 1.36): the first deletion sets the grace period, a later one may only
shorten it, and a grace of 0 is the order to remove. Finalizers and garbage collection are left out: nothing of
fracgpu uses them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from playground.cluster import JsonObject

DEFAULT_GRACE_SECONDS = 30


def mark_pod(pod: JsonObject, *, grace_seconds: int | None, now: datetime) -> JsonObject:
    """Return ``pod`` marked for deletion, or ``pod`` itself if its mark stays as it is.

    Args:
        pod: as stored.
        grace_seconds: what the request asks for; None for the pod's own terminationGracePeriodSeconds.
        now: the time of the request.
    """
    metadata, spec = pod["metadata"], pod.get("spec", {})
    if "deletionTimestamp" in metadata:
        present: int = metadata["deletionGracePeriodSeconds"]
        if grace_seconds is None or grace_seconds >= present:
            return pod
        grace = max(grace_seconds, 0)
        began = datetime.fromisoformat(metadata["deletionTimestamp"]) - timedelta(seconds=present)
        generation = metadata.get("generation", 0)
    else:
        own: int = spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
        grace = own if grace_seconds is None else grace_seconds
        if not spec.get("nodeName") or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            grace = 0  # nothing of it runs anywhere
        elif grace < 0:
            grace = 1
        began = now
        generation = metadata.get("generation", 0) + 1
    ends = (began + timedelta(seconds=grace)).astimezone(UTC)
    marked = {
        **metadata,
        "generation": generation,
        "deletionTimestamp": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "deletionGracePeriodSeconds": grace,
    }
    return {**pod, "metadata": marked}
