"""Runs the webhook's benchmark: ``make bench-webhook``, or ``python -m bench.webhook [--quick] [--output FILE]``.

A missed target is a result and not a failure; the exit status is 1 where something could not be measured.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from bench.command import add_output, add_quick, output_console
from bench.machine import describe_machine
from bench.webhook.burst import measure_burst
from bench.webhook.measuring import QUICK, Scale, measure_large, measure_latency, measure_memory
from bench.webhook.report import Results, show
from bench.webhook.rig import Rig


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write; returns the exit status."""
    arguments = _arguments(argv)
    try:
        results = asyncio.run(_run(QUICK if arguments.quick else Scale()))
    except KeyboardInterrupt:
        return 130
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    show(results, output_console())
    return 1 if any("failed" in section for section in results.values()) else 0


async def _run(scale: Scale) -> Results:
    results: Results = {"machine": describe_machine()}
    async with Rig.open() as rig:
        for section, measure in (
            ("latency", measure_latency),
            ("memory", measure_memory),  # before large bodies leave room in the heap that could hide a growth
            ("large", measure_large),
        ):
            with _told(section, results):
                results[section] = measure(rig, scale)
    with _told("burst", results):
        results["burst"] = await measure_burst(pods=scale.pods, in_flight=scale.in_flight)
    return results


@contextlib.contextmanager
def _told(section: str, results: Results) -> Iterator[None]:
    """What cannot be measured is told in the results, and does not take the rest with it."""
    Console(stderr=True).print(f"measuring {section} (load {os.getloadavg()[0]:.2f}) ...")
    try:
        yield
    except Exception as exc:
        traceback.print_exc()
        results[section] = {"failed": f"{type(exc).__name__}: {exc}"}


def _arguments(argv: list[str] | None) -> Any:
    parser = argparse.ArgumentParser(
        prog="make bench-webhook", description="Measures the admission webhook. Takes about three minutes."
    )
    add_quick(parser)
    add_output(parser, "bench-webhook.json")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
