"""What kube-scheduler and an extender say to each other (Kubernetes, staging k8s.io/kube-scheduler/extender/v1).

The Go types have no JSON names, so the keys are the bare field names. A list or map that is empty may come as null.
An answer is always HTTP 200: kube-scheduler never reads the body of another, and its reason would be lost.
"""

from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from fracgpu.errors import InputError
from fracgpu.names import NodeName, PodUid
from fracgpu.pods import ObjectMeta, Pod

_T = TypeVar("_T")


class _Go(Struct, frozen=True, rename="pascal", gc=False):
    """Go's field names in JSON."""


class ExtenderArgs(_Go, frozen=True):
    """Arguments of filter and prioritize: the candidates as names, or as whole nodes where not nodeCacheCapable."""

    pod: Pod
    node_names: list[NodeName] | None = None
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


class _NodeHead(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()


def candidates(args: ExtenderArgs) -> dict[NodeName, Raw | None]:
    """The candidate nodes by name, with the whole node where it was sent whole.

    Raises:
        InputError: a node without a name, or none that can be read.
    """
    if args.node_names is not None or args.nodes is None:
        return dict.fromkeys(args.node_names or ())
    named: dict[NodeName, Raw | None] = {}
    for item in args.nodes.items or ():
        name = _decode(_node_head, item).metadata.name
        if not name:
            raise InputError("a node in Nodes has no metadata.name")
        named[NodeName(name)] = item
    return named


def decode_extender_args(body: bytes) -> ExtenderArgs:
    """Read the body of filter or prioritize.

    Raises:
        InputError: it is not an ExtenderArgs.
    """
    return _decode(_extender_args, body)


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
_binding_args = msgspec.json.Decoder(BindingArgs)
_node_head = msgspec.json.Decoder(_NodeHead)
