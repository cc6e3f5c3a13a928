"""What has become of each SharingPolicy, summed up from what the nodes' device plugins say of it. Pure.

Plugins resolve the policies by themselves, each for its node, and write into its GPUNode which of them it follows and
what is wrong with the others. What policies mean, and which of them wins, is left to them.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, Literal

from fracgpu.gpunodes import SharingStatus
from fracgpu.names import NodeName
from fracgpu.sharing import Condition, PolicyProblem, SharingPolicy, SharingPolicyStatus

ACCEPTED: Final = "Accepted"
IN_FORCE: Final = "InForce"
_MAX_NODES: Final = 1000  # names that a status lists
_NAMED: Final = 5  # nodes that a message names, and one for each further finding
_TOLD: Final = 3  # different findings that a message tells
_MAX_MESSAGE: Final = 300  # characters that are kept of what one node says
_GRAVEST_FIRST: Final = ("Invalid", "Conflict", "UnitMismatch")


def statuses(
    policies: Iterable[SharingPolicy], nodes: Mapping[NodeName, SharingStatus | None], *, now: str
) -> dict[str, SharingPolicyStatus]:
    """The status that each policy should have.

    Args:
        policies: all of the cluster, with the statuses that they have.
        nodes: node name -> what its plugin says of them; None where it has not said anything.
        now: the time in RFC 3339, for conditions that change.

    Returns:
        Policy name -> its status; equal to the one that it has where nothing is to be written.
    """
    followers: defaultdict[str, list[NodeName]] = defaultdict(list)  # policy -> nodes that follow it
    faults: defaultdict[str, list[tuple[NodeName, PolicyProblem]]] = defaultdict(list)  # policy -> who finds which
    for name, sharing in nodes.items():
        if sharing is not None:
            for policy in sharing.policies:
                followers[policy].append(name)
            for problem in sharing.problems:
                faults[problem.policy].append((name, problem))
    return {
        policy.metadata.name: _status(
            policy, sorted(followers[policy.metadata.name]), faults[policy.metadata.name], now=now
        )
        for policy in policies
    }


def own_part(status: SharingPolicyStatus | None) -> SharingPolicyStatus:
    """Of a status as stored what `statuses` is about: without conditions of others."""
    if status is None:
        return SharingPolicyStatus()
    conditions = {condition.type: condition for condition in status.conditions}
    own = tuple(conditions[kind] for kind in (ACCEPTED, IN_FORCE) if kind in conditions)
    return SharingPolicyStatus(status.observed_generation, own, status.node_count, status.nodes)


def slim(sharing: SharingStatus | None) -> SharingStatus | None:
    """What is kept of a node's word: thousands of nodes say the same, and it is kept once."""
    return None if sharing is None else _once(sharing)


@lru_cache(maxsize=1024)
def _once(sharing: SharingStatus) -> SharingStatus:
    problems = (
        PolicyProblem(sys.intern(found.policy), found.generation, found.reason, _cut(found.message))
        for found in sharing.problems
    )
    return SharingStatus(tuple(map(sys.intern, sharing.policies)), tuple(problems))


def _cut(message: str) -> str:
    return message if len(message) <= _MAX_MESSAGE else f"{message[: _MAX_MESSAGE - 1]}…"


def _status(
    policy: SharingPolicy, nodes: Sequence[NodeName], faults: Iterable[tuple[NodeName, PolicyProblem]], *, now: str
) -> SharingPolicyStatus:
    generation = policy.metadata.generation
    before = {condition.type: condition for condition in own_part(policy.status).conditions}

    def condition(kind: str, *, reason: str, message: str, holds: bool) -> Condition:
        status: Literal["True", "False"] = "True" if holds else "False"
        was = before.get(kind)
        since = was.last_transition_time if was is not None and was.status == status else now
        return Condition(kind, status, reason, message, generation, since)

    # What was found of an earlier generation may have been mended by this one; its plugin is about to say.
    current = [(node, problem) for node, problem in faults if problem.generation == generation]
    if current:
        reason, message = _complaint(current)
        accepted = condition(ACCEPTED, reason=reason, message=message, holds=False)
    else:
        accepted = condition(ACCEPTED, reason="Accepted", message="no node finds fault with it", holds=True)
    if nodes:
        message = f"{len(nodes)} nodes follow it" if len(nodes) > 1 else f"{nodes[0]} follows it"
        in_force = condition(IN_FORCE, reason="NodesFollow", message=message, holds=True)
    else:
        message = "no node follows it: its nodeSelector matches none with GPUs, or more specific policies hold there"
        in_force = condition(IN_FORCE, reason="NoNodeMatches", message=message, holds=False)
    return SharingPolicyStatus(generation, (accepted, in_force), len(nodes), tuple(nodes[:_MAX_NODES]))


def _complaint(faults: Sequence[tuple[NodeName, PolicyProblem]]) -> tuple[str, str]:
    """The gravest reason, and what nodes find, the gravest first: ``<what> (on node-1, node-2 and 3 more)``."""
    found: defaultdict[tuple[int, str], set[NodeName]] = defaultdict(set)  # gravity, message -> nodes
    for node, problem in faults:
        found[_GRAVEST_FIRST.index(problem.reason), problem.message].add(node)
    in_order = sorted(found.items(), key=lambda item: (item[0][0], -len(item[1]), item[0][1]))
    parts: list[str] = []
    left = _NAMED
    for (_, message), nodes in in_order[:_TOLD]:
        names = sorted(nodes)[: max(1, left)]
        left -= len(names)
        more = f" and {len(nodes) - len(names)} more" if len(nodes) > len(names) else ""
        parts.append(f"{message} (on {', '.join(names)}{more})")
    if others := set().union(*(nodes for _, nodes in in_order[_TOLD:])):
        parts.append(f"and something else on {len(others)} {'node' if len(others) == 1 else 'nodes'}")
    return _GRAVEST_FIRST[in_order[0][0][0]], "; ".join(parts)
