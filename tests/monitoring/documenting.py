"""The tables of docs/metrics.md, made of what the services tell."""

from pathlib import Path

from tests.monitoring.exposing import SERVICES, Exposed

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
_BEGIN, _END = "<!-- metrics of the {} -->", "<!-- end -->"


def tables(exposed: Exposed) -> dict[str, str]:
    """Service -> the table of its metrics."""
    return {service: _table(exposed, service) for service in SERVICES}


def with_tables(page: str, found: dict[str, str]) -> str:
    """The page with these tables in the places for them."""
    for service, table in found.items():
        begin = _BEGIN.format(service)
        before, _, rest = page.partition(begin)
        _, end, after = rest.partition(_END)
        assert end, f"there is no place for the {service}'s table"
        page = f"{before}{begin}\n{table}{end}{after}"
    return page


def _table(exposed: Exposed, service: str) -> str:
    rows = []
    for family in sorted(exposed.families(service), key=lambda family: family.name):
        if not family.name.startswith("fracgpu_"):
            continue  # the process's own, which all programs have
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        name = f"{family.name}_total" if family.type == "counter" else family.name
        shown = ", ".join(f"`{label}`" for label in labels)
        rows.append(f"| `{name}` | {family.type} | {shown} | {family.documentation.replace('|', chr(92) + '|')} |\n")
    return "".join(["| metric | type | labels | what |\n", "| --- | --- | --- | --- |\n", *rows])
