"""AdmissionReview admission.k8s.io/v1: what kube-apiserver asks, and what it is answered.

Bytes in, bytes out, and pure. Two kinds of mistakes are kept apart: a review that is not one is a `ReviewError`, for
whoever set the webhook up; a pod that cannot be read is a denied pod, for whoever wrote it.
"""

from base64 import b64encode
from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct

from fracgpu.errors import InputError
from webhook.mutation import mutate
from webhook.patches import patch_for
from webhook.pods import AdmittedPod
from webhook.policy import Policy

_API_VERSION: Final = "admission.k8s.io/v1"
_KIND: Final = "AdmissionReview"
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no such JSON; the last for arrays nested thousands deep."""


class ReviewError(InputError):
    """What arrived is no AdmissionReview v1 of a pod."""

    reason = "InvalidReview"


class _Kind(Struct, frozen=True):
    """metav1.GroupVersionKind."""

    group: str = ""
    version: str = ""
    kind: str = ""


class _Request(Struct, frozen=True):
    """admission.k8s.io/v1 AdmissionRequest; `object` is decoded only if it is looked at."""

    uid: str
    kind: _Kind
    operation: Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
    object: Raw = Raw(b"null")


class _Review(Struct, frozen=True, rename="camel"):
    """admission.k8s.io/v1 AdmissionReview as sent."""

    api_version: str = ""
    kind: str = ""
    request: _Request | None = None


class _Status(Struct, frozen=True):
    """metav1.Status of a refusal; kubectl prints ``Error from server (<reason>)``, the file, and the message."""

    message: str
    status: str = "Failure"
    reason: str = "Forbidden"
    code: int = 403


class _Response(Struct, frozen=True, rename="camel", omit_defaults=True):
    """admission.k8s.io/v1 AdmissionResponse; `patch` is base64, as Go encodes bytes."""

    uid: str
    allowed: bool
    status: _Status | None = None
    patch_type: str | None = None
    patch: str | None = None


class _Answer(Struct, frozen=True, rename="camel"):
    """admission.k8s.io/v1 AdmissionReview as answered."""

    response: _Response
    api_version: str = _API_VERSION
    kind: str = _KIND


def answer(body: bytes, *, policy: Policy) -> bytes:
    """Answer an AdmissionReview.

    Only the creation of a pod is judged: what is written to a running pod may come from the system, and changes no
    limit.

    Raises:
        ReviewError: the body is no AdmissionReview v1 of a pod.
    """
    request = _read(body)
    response = _judge(request, policy) if request.operation == "CREATE" else _Response(request.uid, allowed=True)
    return _encoder.encode(_Answer(response))


def _read(body: bytes) -> _Request:
    try:
        review = _review_decoder.decode(body)
    except _UNREADABLE as exc:
        raise ReviewError(f"the body cannot be read as an {_API_VERSION} {_KIND}: {exc}") from exc
    if (review.api_version, review.kind) != (_API_VERSION, _KIND):
        raise ReviewError(
            f"the body is a {review.api_version[:64]!r} {review.kind[:64]!r}; this webhook reads {_API_VERSION} {_KIND}"
        )
    if review.request is None:
        raise ReviewError(f"the {_KIND} has no request")
    if review.request.kind != _POD:
        found = review.request.kind
        raise ReviewError(
            f"the {_KIND} is about {found.group[:64]!r} {found.version[:64]!r} {found.kind[:64]!r}; this webhook reads "
            "v1 Pod only, so set its rules to the resource pods"
        )
    return review.request


def _judge(request: _Request, policy: Policy) -> _Response:
    try:
        pod = _pod_decoder.decode(request.object)
    except _UNREADABLE as exc:
        message = f"the pod cannot be read: {exc}"
        return _Response(request.uid, allowed=False, status=_Status(message))
    decision = mutate(pod, policy=policy)
    if decision.refusal:
        return _Response(request.uid, allowed=False, status=_Status(decision.refusal))
    if decision.limit is None:
        return _Response(request.uid, allowed=True)
    patch = b64encode(_encoder.encode(patch_for(decision.limit))).decode()
    return _Response(request.uid, allowed=True, patch_type="JSONPatch", patch=patch)


_POD: Final = _Kind("", "v1", "Pod")
_encoder = msgspec.json.Encoder()
_review_decoder = msgspec.json.Decoder(_Review)
_pod_decoder = msgspec.json.Decoder(AdmittedPod)
