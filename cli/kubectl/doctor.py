"""`kubectl fracgpu doctor`: all checks, one line each, and an exit code by the worst of them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cli.kubectl.checks.certificates import check_certificates, check_registrations
from cli.kubectl.checks.finding import Finding, Status
from cli.kubectl.checks.installed import check_definitions, check_policies, check_running
from cli.kubectl.checks.nodes import check_health, check_offers, check_plugins, check_units
from cli.kubectl.checks.pods import check_pods
from cli.kubectl.checks.scheduler import check_scheduler
from cli.kubectl.facts import Facts, gather
from cli.kubectl.flags import Output, Where
from cli.kubectl.printing import now, show, show_data
from cli.kubectl.session import EXIT_FAILED, connected
from cli.kubectl.wording import count

_STYLES: Final = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red", Status.UNKNOWN: "dim"}


class Report(Struct, frozen=True):
    """What ``-o json`` prints; `healthy` is false where a check failed."""

    namespace: str
    healthy: bool
    findings: list[Finding]


async def doctor(where: Where, *, output: Output) -> int:
    """Check the installation.

    Args:
        where: which cluster; its namespace is fracgpu's.
        output: how to print it; wide shows what to do of every line.

    Returns:
        0 where no check failed, with warnings or without; 1 where one did.

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
    """All checks, in the order in which a pod meets what they look at."""
    findings = [
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
    healthy = not any(finding.status is Status.FAIL for finding in findings)
    return Report(facts.namespace, healthy, findings)


def draw(report: Report) -> Group:
    """The report for a person."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(no_wrap=True)
    for finding in report.findings:
        said = Text(finding.found)
        if finding.mend:
            said.append(f"; to mend it: {finding.mend}", style="bold")
        made.add_row(Text(finding.status, style=_STYLES[finding.status]), Text(finding.check), said)
    return Group(made, Text(), Text(_sum(report.findings)))


def _sum(findings: Sequence[Finding]) -> str:
    numbers = {status: sum(finding.status is status for finding in findings) for status in Status}
    parts = [
        count(numbers[Status.FAIL], "problem"),
        count(numbers[Status.WARN], "warning"),
        *([f"{numbers[Status.UNKNOWN]} unknown"] if numbers[Status.UNKNOWN] else []),
    ]
    return f"{len(findings)} checks: {', '.join(parts)}."
