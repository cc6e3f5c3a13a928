"""AdmissionReview admission.k8s.io/v1: what kube-apiserver asks, and what it is answered.

Bytes in, bytes out, and pure. Two kinds of mistakes are kept apart: a review that is not one is a `ReviewError`, for
whoever set the webhook up; a pod that cannot be read is a denied pod, for whoever wrote it. What makes pods is never
denied: its pods will be, and a warning says so already when it is applied.
"""

from base64 import b64encode
from collections.abc import Callable
from enum import StrEnum
from math import ceil
from textwrap import wrap
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec import Raw, Struct

from fracgpu.errors import InputError
from webhook.cards import Cluster
from webhook.mutation import Decision, RefusalReason, mutate
from webhook.patches import patch_between
from webhook.pods import AdmittedPod
from webhook.policy import Policy
from webhook.workloads import WORKLOADS, pod_template_of, why_misplaced

_API_VERSION: Final = "admission.k8s.io/v1"
_KIND: Final = "AdmissionReview"
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no such JSON; the last for arrays nested thousands deep."""


_MAX_WARNING: Final = 240  # characters; kube-apiserver cuts at 256
_EVEN: Final = 20  # characters more than an even part, so that no word is left alone


class ReviewError(InputError):
    """What arrived is no AdmissionReview v1 of what is judged there."""

    reason = "InvalidReview"


class Outcome(StrEnum):
    """What became of a review, to be counted."""

    MUTATED = "mutated"
    """A pod with a GPU was let in and changed."""
    UNCHANGED = "unchanged"
    """A pod with a GPU was let in as it was."""
    UNCONCERNED = "unconcerned"
    """No GPU is asked for, or nothing is created."""
    REFUSED = "refused"
    """A pod was refused."""
    WARNED = "warned"
    """What makes pods was let pass, with a warning."""
    SILENT = "silent"
    """What makes pods with GPUs was let pass, and all is well with it."""


class About(NamedTuple):
    """What a review was about.

    Attributes:
        kind: Pod, Deployment, and so on.
        namespace: where it is to be.
        name: its name; empty where the API server has yet to make one up.
        review: the review's own UID.
        sentence: what its author was told, the first of it; empty where nothing.
    """

    kind: str = ""
    namespace: str = ""
    name: str = ""
    review: str = ""
    sentence: str = ""


class Verdict(NamedTuple):
    """What became of a review; the reason and the language are those of `mutation.Decision`."""

    outcome: Outcome
    reason: RefusalReason | None = None
    language: str = ""
    about: About = About()


Note = Callable[[Verdict], None]


def _unnoted(_: Verdict) -> None:
    """Tell nobody."""


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
    name: str = ""
    namespace: str = ""
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
    warnings: tuple[str, ...] = ()


class _Answer(Struct, frozen=True, rename="camel"):
    """admission.k8s.io/v1 AdmissionReview as answered."""

    response: _Response
    api_version: str = _API_VERSION
    kind: str = _KIND


def answer_pod(body: bytes, *, policy: Policy, cluster: Cluster, note: Note = _unnoted) -> bytes:
    """Answer an AdmissionReview of a pod that is to be created: how it has to be changed, or why it is refused.

    Only the creation of a pod is judged: what is written to a running pod may come from the system, and changes no
    limit.

    Args:
        body: the review.
        policy: what the administrator has set.
        cluster: the GPUs that there are, as far as is known.
        note: is told what became of it.

    Raises:
        ReviewError: the body is no AdmissionReview v1 of a pod.
    """
    request = _read(body, kinds=(_POD,))
    if request.operation != "CREATE":
        response, verdict = _Response(request.uid, allowed=True), _UNCONCERNED
    else:
        response, verdict = _judge(request, policy=policy, cluster=cluster)
    told = (response.status.message,) if response.status is not None else response.warnings
    note(verdict._replace(about=_about(request, told)))
    return _encoder.encode(_Answer(response))


def answer_workload(body: bytes, *, policy: Policy, cluster: Cluster, note: Note = _unnoted) -> bytes:
    """Answer an AdmissionReview of what makes pods: let it pass, with a warning where its pods would be refused.

    Args:
        body: the review.
        policy: what the administrator has set.
        cluster: the GPUs that there are, as far as is known.
        note: is told what became of it.

    Raises:
        ReviewError: the body is no AdmissionReview v1 of one of `workloads.WORKLOADS`.
    """
    request = _read(body, kinds=tuple(_Kind(*kind) for kind in WORKLOADS))
    warnings: tuple[str, ...] = ()
    verdict = _UNCONCERNED
    if request.operation in ("CREATE", "UPDATE"):
        warnings, verdict = _warnings_of(request, policy=policy, cluster=cluster)
    note(verdict._replace(about=_about(request, warnings)))
    return _encoder.encode(_Answer(_Response(request.uid, allowed=True, warnings=_in_pieces(warnings))))


def _about(request: _Request, told: tuple[str, ...]) -> About:
    return About(request.kind.kind, request.namespace, request.name, request.uid, sentence=told[0] if told else "")


def _read(body: bytes, *, kinds: tuple[_Kind, ...]) -> _Request:
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
    if review.request.kind not in kinds:
        found = review.request.kind
        allowed = ", ".join(f"{kind.group + '/' if kind.group else ''}{kind.version} {kind.kind}" for kind in kinds)
        raise ReviewError(
            f"the {_KIND} is about {found.group[:64]!r} {found.version[:64]!r} {found.kind[:64]!r}; here it is read of "
            f"{allowed} only, so set the rules to these"
        )
    return review.request


def _judge(request: _Request, *, policy: Policy, cluster: Cluster) -> tuple[_Response, Verdict]:
    try:
        pod = _pod_decoder.decode(request.object)
    except _UNREADABLE as exc:
        message = f"the pod cannot be read: {exc}"
        return _Response(request.uid, allowed=False, status=_Status(message)), _refused(RefusalReason.UNREADABLE)
    decision = mutate(pod, namespace=request.namespace, policy=policy, cluster=cluster)
    if decision.refusal:
        response = _Response(request.uid, allowed=False, status=_Status(decision.refusal))
        return response, _refused(decision.reason)
    warnings = _in_pieces(decision.warnings)
    operations = patch_between(pod, decision.pod) if decision.pod is not pod else []
    if not operations:
        outcome = Outcome.UNCHANGED if decision.language else Outcome.UNCONCERNED
        return _Response(request.uid, allowed=True, warnings=warnings), Verdict(outcome, language=decision.language)
    patch = b64encode(_encoder.encode(operations)).decode()
    response = _Response(request.uid, allowed=True, patch_type="JSONPatch", patch=patch, warnings=warnings)
    return response, Verdict(Outcome.MUTATED, language=decision.language)


def _refused(reason: RefusalReason | None) -> Verdict:
    return Verdict(Outcome.REFUSED, reason)


def _warnings_of(request: _Request, *, policy: Policy, cluster: Cluster) -> tuple[tuple[str, ...], Verdict]:
    kind = request.kind.kind
    try:
        metadata, pod = pod_template_of(kind, request.object)
    except _UNREADABLE as exc:
        warned = Verdict(Outcome.WARNED, RefusalReason.UNREADABLE)
        return (f"the pod template of this {kind} cannot be read by fracgpu: {exc}",), warned
    decision: Decision = mutate(pod, namespace=request.namespace, policy=policy, cluster=cluster)
    if decision.refusal:
        warning = f"the pods of this {kind} will be refused: {decision.refusal}"
        return (warning,), Verdict(Outcome.WARNED, decision.reason)
    misplaced = why_misplaced(kind, metadata, pod)
    warnings = (misplaced, *decision.warnings) if misplaced else decision.warnings
    if warnings:
        return warnings, Verdict(Outcome.WARNED, language=decision.language)
    return (), Verdict(Outcome.SILENT, language=decision.language) if decision.language else _UNCONCERNED


def _in_pieces(warnings: tuple[str, ...]) -> tuple[str, ...]:
    """Warnings as kube-apiserver lets them through: it cuts what is longer than 256 characters."""
    pieces: list[str] = []
    for warning in warnings:
        count = ceil(len(warning) / _MAX_WARNING)
        pieces += wrap(warning, min(_MAX_WARNING, len(warning) // count + _EVEN))
    return tuple(pieces)


_POD: Final = _Kind("", "v1", "Pod")
_UNCONCERNED: Final = Verdict(Outcome.UNCONCERNED)
_encoder = msgspec.json.Encoder()
_review_decoder = msgspec.json.Decoder(_Review)
_pod_decoder = msgspec.json.Decoder(AdmittedPod)
