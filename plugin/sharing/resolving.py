"""Which of all that was said of this node's GPUs wins, field by field and GPU by GPU. Pure.

A SharingPolicy wins over flag and environment, those over the file's rules, those over the defaults. Among policies,
and among the file's rules, the more specific wins: by a MIG instance's UUID over by its GPU's, over by model, over the
whole node; then with a node selector over without one. Where two are equally specific, the older policy wins (in the
file the first rule), and where they differ, the other is told. A value that cannot work on a GPU is told and dropped
there, and the next one is taken.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from fracgpu.quantities import DEFAULT_REPLICAS, Mib, capacity_units
from fracgpu.requests import MAX_SEATS
from fracgpu.selectors import matches_model
from fracgpu.sharing import GpuRule, IsolationChoice, SharingPolicy, SharingSpec
from plugin.gpus.cards import Card
from plugin.sharing.weighing import Complaints, Saying, Source, pick
from plugin.wishes import GpuWish, NodeWish

MAX_POLICIES: Final = 256
"""Names of policies of one node: its GPUNode is an object of bounded size."""

_NODE, _MODEL, _PARENT, _UUID = range(4)  # how closely a value names a GPU
_FILE, _GIVEN, _POLICY = range(3)  # the later wins

_Said = tuple[Source, SharingSpec, int]  # who said what, and which of the three that is


def resolve(
    cards: Sequence[Card],
    *,
    labels: Mapping[str, str],
    policies: Sequence[SharingPolicy],
    rules: Sequence[SharingSpec],
    replicas: int | None,
    reserved: Mib | None,
    isolation: IsolationChoice | None,
    unit: Mib,
) -> NodeWish:
    """Weigh everything that was said.

    Args:
        cards: the node's GPUs.
        labels: the node's.
        policies: all SharingPolicies of the cluster, in any order.
        rules: the file's, in its order.
        replicas: by flag or environment; None where not given.
        reserved: the same, of memory that is never given away.
        isolation: the same, of how containers are kept within their shares.
        unit: MiB of a memory unit.
    """
    here = sorted((policy for policy in policies if _names_node(policy.spec, labels)), key=_age)
    said = [
        *((_source(policy), policy.spec, _POLICY) for policy in here),
        (Source("flag or environment"), SharingSpec(None, replicas, reserved, isolation), _GIVEN),
        *(
            (Source(f"sharing[{place}] of the file"), rule, _FILE)
            for place, rule in enumerate(rules)
            if _names_node(rule, labels)
        ),
    ]
    complaints = Complaints()
    for source, spec, _ in said:
        if spec.memory_unit not in (None, unit):
            complaints.add(
                source,
                "UnitMismatch",
                f"memoryUnitMiB is {spec.memory_unit}, and this node counts in units of {unit} MiB; the rest of it "
                "applies. The unit is a setting of webhook, extender and device plugin alike, and never set by this",
            )
    gpus = {
        card.uuid: _gpu_wish(card, said, unit=unit, complaints=complaints)
        for card in sorted(cards, key=lambda card: card.uuid)
    }
    mechanism = pick(
        [
            Saying(spec.isolation, source, (tier, _NODE, _has_selector(spec)))
            for source, spec, tier in said
            if spec.isolation is not None
        ],
        name="isolation",
        default="auto",
        complaints=complaints,
    )
    return NodeWish(gpus, mechanism, _names_of(here, cards), complaints.problems(), complaints.sentences())


def _gpu_wish(card: Card, said: Sequence[_Said], *, unit: Mib, complaints: Complaints) -> GpuWish:
    about = [
        (rule, source, (tier, closeness, _has_selector(spec)))
        for source, spec, tier in said
        for rule, closeness in _about(spec, card)
    ]
    is_excluded = pick(
        [Saying(rule.excluded, source, rank) for rule, source, rank in about if rule.excluded is not None],
        name="excluded",
        default=False,
        complaints=complaints,
        gpu=card.uuid,
    )
    if is_excluded:
        complaints = Complaints()  # the rest matters to nobody
    reserved = pick(
        [Saying(rule.reserved, source, rank) for rule, source, rank in about if rule.reserved is not None],
        name="reservedMiB",
        default=Mib(0),
        complaints=complaints,
        gpu=card.uuid,
        refuse=lambda value: _reserved_too_much(value, card=card, unit=unit),
    )
    units = capacity_units(card.memory, reserved=reserved, unit=unit)
    replicas = pick(
        [Saying(rule.replicas, source, rank) for rule, source, rank in about if rule.replicas is not None],
        name="replicas",
        default=max(1, min(DEFAULT_REPLICAS, units)) if card.memory else DEFAULT_REPLICAS,
        complaints=complaints,
        gpu=card.uuid,
        refuse=lambda value: _too_many(value, card=card, units=units),
    )
    return GpuWish(replicas, reserved, is_excluded)


def _about(spec: SharingSpec, card: Card) -> Iterator[tuple[GpuRule, int]]:
    """What a spec says of a GPU, and how closely it names it there."""
    yield GpuRule(replicas=spec.replicas, reserved=spec.reserved), _NODE
    for rule in spec.gpus:
        closeness = _names(rule, card)
        if closeness is not None:
            yield rule, closeness


def _names(rule: GpuRule, card: Card) -> int | None:
    if rule.uuid:  # only a file of NVIDIA's has an index in its place
        if rule.uuid in (card.uuid, card.index_name):
            return _UUID
        return _PARENT if card.mig and rule.uuid in (card.mig.parent, str(card.index)) else None
    return _MODEL if rule.model and matches_model(rule.model, card.product) else None


def _reserved_too_much(reserved: Mib, *, card: Card, unit: Mib) -> str:
    if not card.memory or reserved == 0 or capacity_units(card.memory, reserved=reserved, unit=unit) > 0:
        return ""  # nothing can be said of a GPU that does not answer
    return f"of its {card.memory} MiB not one unit of {unit} MiB would be left"


def _too_many(replicas: int, *, card: Card, units: int) -> str:
    if not 1 <= replicas <= MAX_SEATS:
        return f"it has to be from 1 to {MAX_SEATS}"
    if not card.memory or replicas <= max(1, units):
        return ""
    return f"it has {units} memory units, and each replica needs one"


def _names_node(spec: SharingSpec, labels: Mapping[str, str]) -> bool:
    return spec.node_selector is None or spec.node_selector.matches(labels)


def _has_selector(spec: SharingSpec) -> bool:
    selector = spec.node_selector
    return selector is not None and bool(selector.match_labels or selector.match_expressions)


def _age(policy: SharingPolicy) -> tuple[bool, str, str]:
    created = policy.metadata.creation_timestamp  # of the form 2026-01-31T12:00:00Z, which sorts as text
    return created is None, created or "", policy.metadata.name


def _source(policy: SharingPolicy) -> Source:
    return Source(f"SharingPolicy {policy.metadata.name}", policy.metadata.name, policy.metadata.generation)


def _names_of(policies: Sequence[SharingPolicy], cards: Sequence[Card]) -> tuple[str, ...]:
    """Of those that say anything here the names, the most specific first."""
    closeness = {policy.metadata.name: _closeness(policy.spec, cards) for policy in policies}
    ordered = sorted(
        (policy for policy in policies if closeness[policy.metadata.name] is not None),
        key=lambda policy: (closeness[policy.metadata.name] or _NODE, _has_selector(policy.spec)),
        reverse=True,  # which keeps the order of what is equal
    )
    return tuple(policy.metadata.name for policy in ordered[:MAX_POLICIES])


def _closeness(spec: SharingSpec, cards: Sequence[Card]) -> int | None:
    """How closely a spec names any of the GPUs; None where it says nothing here."""
    is_about_node = any(value is not None for value in (spec.replicas, spec.reserved, spec.isolation, spec.memory_unit))
    named = [closeness for card in cards for rule in spec.gpus if (closeness := _names(rule, card)) is not None]
    return max(named, default=_NODE if is_about_node else None)
