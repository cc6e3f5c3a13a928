"""`kubectl fracgpu doctor`: all checks, one line each, and an exit code by the worst of them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cli.kubectl.checks.certificates import check_certificates, check_registrations
from cli.kubectl.checks.finding import Finding, Status, ok
from cli.kubectl.checks.installed import check_definitions, check_policies, check_running
from cli.kubectl.checks.nodes import check_announced, check_health, check_offers, check_plugins, check_units
from cli.kubectl.checks.pods import check_pods
from cli.kubectl.checks.scheduler import check_scheduler
from cli.kubectl.facts import Facts
from cli.kubectl.flags import Output, Where
from cli.kubectl.gathering import gather
from cli.kubectl.printing import now, show, show_data
from cli.kubectl.session import EXIT_FAILED, connected
from cli.kubectl.wording import count

_STYLES: Final = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red", Status.UNKNOWN: "dim"}


class Report(Struct, frozen=True):
    """What ``-o json`` prints; `healthy` is false where a check failed, or nothing could be looked at."""

    namespace: str
    healthy: bool
    findings: list[Finding]


async def doctor(where: Where, *, output: Output) -> int:
    """Check the installation.

    Args:
        where: which cluster; its namespace is fracgpu's.
        output: how to print it; wide shows what to do of every line.

    Returns:
        0 where no check failed, with warnings or without; 1 where one did, or nothing could be looked at.

    Raises:
        FracgpuError: the cluster cannot be asked.
    """
    async with connected(where) as session:
        facts = await gather(session, namespace=where.namespace)
    report = examine(facts, now=now())
    if output in (Output.JSON, Output.YAML):
        show_data(report, output=output)
    else:
        show(draw(report))
    return 0 if report.healthy else EXIT_FAILED


def examine(facts: Facts, *, now: datetime) -> Report:
    """All checks, in the order in which a pod meets what they look at; of a simulated cluster those that make sense."""
    findings = _of_simulated(facts) if facts.simulator else _of_real(facts, now=now)
    healthy = not any(finding.status is Status.FAIL for finding in findings) and not _is_blind(findings)
    return Report(facts.namespace, healthy, findings)


def _of_simulated(facts: Facts) -> list[Finding]:
    what = f"a simulated one ({facts.simulator}), in which nothing is installed as pods: only nodes, units and pods"
    return [
        ok("cluster", f"{what} are looked at"),
        *check_announced(facts),
        *check_offers(facts),
        *check_health(facts),
        *check_units(facts),
        *check_pods(facts),
    ]


def _of_real(facts: Facts, *, now: datetime) -> list[Finding]:
    return [
        *check_definitions(facts),
        *check_policies(facts),
        *check_registrations(facts),
        *check_certificates(facts, now=now),
        *check_running(facts),
        *check_scheduler(facts),
        *check_plugins(facts),
        *check_offers(facts),
        *check_health(facts),
        *check_units(facts),
        *check_pods(facts),
    ]


def _is_blind(findings: Sequence[Finding]) -> bool:
    return all(finding.status is Status.UNKNOWN for finding in findings)


def draw(report: Report) -> Group:
    """The report for a person."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(no_wrap=True)
    for finding in report.findings:
        said = Text(finding.found)
        if finding.mend:
            word = "instead see" if finding.status is Status.UNKNOWN else "to mend it"
            said.append(f"; {word}: {finding.mend}", style="bold")
        made.add_row(Text(finding.status, style=_STYLES[finding.status]), Text(finding.check), said)
    return Group(made, Text(), Text(_sum(report.findings)))


def _sum(findings: Sequence[Finding]) -> str:
    numbers = {status: sum(finding.status is status for finding in findings) for status in Status}
    parts = [
        count(numbers[Status.FAIL], "problem"),
        count(numbers[Status.WARN], "warning"),
        *([f"{numbers[Status.UNKNOWN]} unknown"] if numbers[Status.UNKNOWN] else []),
    ]
    if _is_blind(findings):
        parts.append("so nothing could be looked at (what you need: docs/kubectl.md, Rights)")
    return f"{len(findings)} checks: {', '.join(parts)}."
