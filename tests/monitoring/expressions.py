"""What a PromQL expression asks of metrics: which series, and which of their labels."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser

PANEL_VARIABLES = {"$__rate_interval": "5m", "$node": ".*", "$product": ".*"}
"""What Grafana fills in."""
ADDED = frozenset({"instance", "job"})
"""Labels that Prometheus gives every series it scrapes."""
_NAME = re.compile(r"[a-zA-Z_][\w|/]*")


@dataclass(frozen=True)
class Selector:
    """A series that is asked for: its name, and label -> the values that it names, if it names some."""

    name: str
    values: dict[str, frozenset[str]]


def filled_in(expression: str) -> str:
    """An expression of a panel as Grafana sends it."""
    for variable, value in PANEL_VARIABLES.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression, f"a variable that nobody fills in: {expression}"
    return expression


def parsed(expression: str) -> Any:
    return promql_parser.parse(filled_in(expression))


def selectors_in(expression: str) -> list[Selector]:
    """All series that an expression asks for."""
    return [
        Selector(node.name or "", {matcher.name: _values(matcher) for matcher in node.matchers.matchers})
        for node in _nodes(parsed(expression))
        if isinstance(node, promql_parser.VectorSelector)
    ]


def missing_labels(expression: str, labels: dict[str, dict[str, set[str]]]) -> set[str]:
    """The labels by which an expression groups or joins that none of the series have over which it does.

    Args:
        expression: in PromQL.
        labels: name of a series -> its labels.
    """
    found: set[str] = set()
    for node in _nodes(parsed(expression)):
        modifier = getattr(node, "modifier", None)
        if isinstance(node, promql_parser.AggregateExpr) and modifier is not None:
            wanted = set(modifier.labels)
        elif isinstance(node, promql_parser.BinaryExpr) and modifier is not None:
            wanted = set(modifier.matching.labels) if modifier.matching else set()
            wanted |= set(modifier.group_labels or ())
        else:
            continue
        series = [one.name for one in _nodes(node) if isinstance(one, promql_parser.VectorSelector)]
        found |= {one for one in wanted - ADDED if not any(one in labels.get(name or "", {}) for name in series)}
    return found


def _nodes(tree: Any) -> Iterator[Any]:
    found: list[Any] = []
    promql_parser.walk(tree, pre_visit=found.append)
    yield from found


def _values(matcher: Any) -> frozenset[str]:
    """The values that a matcher names; none for a pattern that is more than alternatives."""
    if matcher.op in (promql_parser.MatchOp.Equal, promql_parser.MatchOp.NotEqual):
        return frozenset({matcher.value})
    return frozenset(matcher.value.split("|")) if _NAME.fullmatch(matcher.value) else frozenset()
