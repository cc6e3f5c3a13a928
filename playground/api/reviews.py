"""Who am I, and may I: answered with "everybody may do everything", for nobody is asked who they are. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from playground.cluster import JsonObject

_USER = {"username": "playground", "groups": ["system:masters", "system:authenticated"]}
_RULES = {
    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    "incomplete": False,
}
REVIEWS: Mapping[str, tuple[str, str, JsonObject]] = {
    "selfsubjectaccessreviews": ("authorization.k8s.io/v1", "SelfSubjectAccessReview", {"allowed": True}),
    "selfsubjectrulesreviews": ("authorization.k8s.io/v1", "SelfSubjectRulesReview", _RULES),
    "selfsubjectreviews": ("authentication.k8s.io/v1", "SelfSubjectReview", {"userInfo": _USER}),
}
"""Plural -> apiVersion, kind and the status that answers a review."""


def answer(path: str, body: bytes) -> JsonObject | None:
    """Answer the review that was posted to a path; None if the path is none of theirs.

    kubectl sends it as protobuf, which is not read: nothing of it matters to the answer.
    """
    *root, plural = path.strip("/").split("/")
    if plural not in REVIEWS:
        return None
    api_version, kind, status = REVIEWS[plural]
    if root != ["apis", *api_version.split("/")]:
        return None
    try:
        spec = msgspec.json.decode(body, type=JsonObject).get("spec") or {}
    except msgspec.MsgspecError:
        spec = {}
    return {"kind": kind, "apiVersion": api_version, "metadata": {}, "spec": spec, "status": status}
