"""What kube-scheduler and an extender say to each other (Kubernetes, staging k8s.io/kube-scheduler/extender/v1).

The Go types have no JSON names, so the keys are the bare field names. A list or map that is empty may come as null.
An answer is HTTP 200 even where it is an error: kube-scheduler never reads the body of another, and its reason would be
lost. Only the answer of preempt has no place for an error.
"""

from typing import Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from fracgpu.errors import InputError
from fracgpu.names import NodeName, PodUid
from fracgpu.pods import ObjectMeta, Pod

_T = TypeVar("_T")
_LONGEST_NAME: Final = 253  # of anything in Kubernetes; what is longer would be kept in the ledger


class _Go(Struct, frozen=True, rename="pascal", gc=False):
    """Go's field names in JSON."""


class ExtenderArgs(_Go, frozen=True):
    """Arguments of filter and prioritize: the candidates as names, or as whole nodes where not nodeCacheCapable."""

    pod: Pod
    node_names: list[NodeName] | None = None
    nodes: "NodeList | None" = None


class _LowerCaseArgs(Struct, frozen=True, rename="lower"):
    """The same from a scheduler of 2017, whose types had lower-case names in JSON; Go reads either."""

    pod: Pod
    nodenames: list[NodeName] | None = None
    nodes: "NodeList | None" = None


class NodeList(Struct, frozen=True, gc=False):
    """core/v1 NodeList; the items are handed back as they came."""

    items: list[Raw] | None = None


class FilterResult(_Go, frozen=True, omit_defaults=False):
    """Answer of filter: the nodes that fit, in the form in which they were asked, and why the others do not."""

    node_names: list[NodeName] | None = None
    nodes: NodeList | None = None
    failed_nodes: dict[NodeName, str] = {}
    failed_and_unresolvable_nodes: dict[NodeName, str] = {}
    error: str = ""


class HostPriority(_Go, frozen=True):
    """Answer of prioritize, one per node: 0 to 10."""

    host: NodeName
    score: int


class BindingArgs(Struct, frozen=True):
    """Arguments of bind."""

    pod_name: str = msgspec.field(name="PodName")
    pod_namespace: str = msgspec.field(name="PodNamespace")
    pod_uid: PodUid = msgspec.field(name="PodUID")
    node: NodeName = msgspec.field(name="Node")


class BindingResult(_Go, frozen=True):
    """Answer of bind: empty where the pod is bound."""

    error: str = ""


class MetaPod(Struct, frozen=True, gc=False):
    """A pod by its UID."""

    uid: PodUid = msgspec.field(name="UID")


class MetaVictims(_Go, frozen=True):
    """Pods to be evicted from a node, by UID, the most important first; and how many violate a disruption budget."""

    pods: list[MetaPod | None] | None = None
    violations: int = msgspec.field(name="NumPDBViolations", default=0)


class Victims(_Go, frozen=True):
    """The same with whole pods."""

    pods: list[Pod | None] | None = None
    violations: int = msgspec.field(name="NumPDBViolations", default=0)


class ExtenderPreemptionArgs(_Go, frozen=True):
    """Arguments of preempt: whom kube-scheduler would evict, by node; by UID where nodeCacheCapable, else whole."""

    pod: Pod
    node_name_to_meta_victims: dict[NodeName, MetaVictims | None] | None = None
    node_name_to_victims: dict[NodeName, Victims | None] | None = None


class ExtenderPreemptionResult(_Go, frozen=True, omit_defaults=False):
    """Answer of preempt: whom to evict instead, by node. It has no place for an error."""

    node_name_to_meta_victims: dict[NodeName, MetaVictims] = {}


class _NodeHead(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()


def candidates(args: ExtenderArgs) -> tuple[list[NodeName], dict[NodeName, Raw] | None]:
    """The names of the candidate nodes, and the whole nodes by name where they were sent whole.

    Raises:
        InputError: a node without a name, or none that can be read.
    """
    if args.node_names is not None or args.nodes is None:
        return args.node_names or [], None
    whole: dict[NodeName, Raw] = {}
    for item in args.nodes.items or ():
        name = _decode(_node_head, item).metadata.name
        if not name:
            raise InputError("a node in Nodes has no metadata.name")
        whole[NodeName(name)] = item
    return list(whole), whole


def decode_extender_args(body: bytes) -> ExtenderArgs:
    """Read the body of filter or prioritize.

    Raises:
        InputError: it is not an ExtenderArgs.
    """
    try:
        args = _decode(_extender_args, body)
    except InputError:
        try:
            old = _decode(_lower_case_args, body)
        except InputError:
            pass
        else:
            return ExtenderArgs(old.pod, old.nodenames, old.nodes)
        raise
    meta = args.pod.metadata
    texts = (meta.uid, meta.name, meta.namespace, *(container.name for container in args.pod.containers))
    if any(len(text) > _LONGEST_NAME for text in texts):
        raise InputError(
            f"the request is not what kube-scheduler sends an extender: a name in it is longer than {_LONGEST_NAME}"
        )
    return args


def decode_preemption_args(body: bytes) -> ExtenderPreemptionArgs:
    """Read the body of preempt.

    Raises:
        InputError: it is not an ExtenderPreemptionArgs.
    """
    return _decode(_preemption_args, body)


def decode_binding_args(body: bytes) -> BindingArgs:
    """Read the body of bind.

    Raises:
        InputError: it is not an ExtenderBindingArgs, or names no pod or node.
    """
    args = _decode(_binding_args, body)
    if not (args.pod_name and args.pod_namespace and args.pod_uid and args.node):
        raise InputError(
            "the request is not what kube-scheduler sends an extender: PodName, PodNamespace, PodUID and "
            "Node must all be given"
        )
    return args


def _decode(decoder: msgspec.json.Decoder[_T], body: bytes | Raw) -> _T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InputError(f"the request is not what kube-scheduler sends an extender: {exc}") from exc


_extender_args = msgspec.json.Decoder(ExtenderArgs)
_lower_case_args = msgspec.json.Decoder(_LowerCaseArgs)
_binding_args = msgspec.json.Decoder(BindingArgs)
_preemption_args = msgspec.json.Decoder(ExtenderPreemptionArgs)
_node_head = msgspec.json.Decoder(_NodeHead)
