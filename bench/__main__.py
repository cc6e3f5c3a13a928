"""Runs the benchmark: ``make bench``, or ``python -m bench [--only filter,memory] [--quick] [--output FILE]``.

A missed target is a result and not a failure; the exit status is 1 where something could not be measured.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console

from bench.command import add_output, add_quick, output_console
from bench.machine import describe_machine
from bench.report import show
from bench.sections import ON_LABS, QUICK, SECTIONS, Results, Scale, measure, measure_labs


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write; returns the exit status."""
    arguments = _arguments(argv)
    scale = QUICK if arguments.quick else Scale()
    try:
        results = asyncio.run(_run(scale, arguments.only))
    except KeyboardInterrupt:
        return 130
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    show(results, output_console())
    return 1 if any(isinstance(found, dict) and "failed" in found for found in results.values()) else 0


async def _run(scale: Scale, only: list[str]) -> Results:
    progress = Console(stderr=True)
    results: Results = {"machine": describe_machine()}
    labs = [section for section in ON_LABS if section in only]
    if labs:
        progress.print(f"measuring {', '.join(labs)} ...")
        with _told(labs, results):
            await measure_labs(scale, set(labs), results)
    for section in only:
        if section not in ON_LABS:
            progress.print(f"measuring {section} ...")
            with _told([section], results):
                results[section] = await measure(section, scale)
    return results


@contextlib.contextmanager
def _told(sections: Sequence[str], results: Results) -> Iterator[None]:
    """What cannot be measured is told in the results, and does not take the rest with it."""
    try:
        yield
    except Exception as exc:
        traceback.print_exc()
        for section in sections:
            results.setdefault(section, {})["failed"] = f"{type(exc).__name__}: {exc}"


def _arguments(argv: list[str] | None) -> Any:
    parser = argparse.ArgumentParser(prog="make bench", description="Measures the extender. Takes some minutes.")
    parser.add_argument(
        "--only",
        type=_sections,
        default=list(SECTIONS),
        metavar="NAMES",
        help=f"these sections, with commas between: {','.join(SECTIONS)} (default: all)",
    )
    add_quick(parser)
    add_output(parser, "bench.json")
    return parser.parse_args(argv)


def _sections(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such section: {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    return [name for name in SECTIONS if name in names]


if __name__ == "__main__":
    sys.exit(main())
