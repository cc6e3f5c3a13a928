"""Runs the device plugin's benchmark: ``make bench-plugin``, or ``python -m bench.plugin [--quick] [--output FILE]``.

A missed target is a result and not a failure; the exit status is 1 where something could not be measured.
"""

import argparse
import asyncio
import json
import sys
import traceback
from typing import Any

from rich.console import Console

from bench.command import add_output, add_quick, output_console
from bench.machine import describe_machine
from bench.plugin.measuring import QUICK, Scale, measure_node
from bench.plugin.nodes import MACHINES
from bench.plugin.report import Results, show


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write; returns the exit status."""
    arguments = _arguments(argv)
    try:
        results = asyncio.run(_run(QUICK if arguments.quick else Scale()))
    except KeyboardInterrupt:
        return 130
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    show(results, output_console())
    return 1 if any("failed" in row for row in results["nodes"].values()) else 0


async def _run(scale: Scale) -> Results:
    progress = Console(stderr=True)
    nodes: dict[str, Any] = {}
    results: Results = {"machine": describe_machine(), "nodes": nodes}
    for machine in MACHINES:
        progress.print(f"measuring a node of {machine.name} ...")
        try:
            nodes[machine.name] = await measure_node(machine, scale)
        except Exception as exc:  # what cannot be measured does not take the rest with it
            traceback.print_exc()
            nodes[machine.name] = {"failed": f"{type(exc).__name__}: {exc}"}
    return results


def _arguments(argv: list[str] | None) -> Any:
    parser = argparse.ArgumentParser(
        prog="make bench-plugin", description="Measures the device plugin. Takes about five minutes."
    )
    add_quick(parser)
    add_output(parser, "bench-plugin.json")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
