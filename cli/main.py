"""The command ``fracgpu``. Heavy parts are imported by the commands that need them."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cli.interrupts import Interrupts

app = typer.Typer(name="fracgpu", help="Share GPUs between Kubernetes pods by video memory.", no_args_is_help=True)


@app.callback()
def _main() -> None:
    # gRPC tells of every connection that a plugin closes, and of every process that we start.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


@app.command()
def demo(
    *,
    once: Annotated[
        bool | None,
        typer.Option(
            "--once/--stay",
            help="End with the final table, or stay up until Ctrl-C. Default: stay where there is a terminal.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the final table as JSON; implies --once.")] = False,
    manifests: Annotated[
        Path | None,
        typer.Option(help="A directory of YAML or JSON manifests to apply instead of the examples."),
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option(help="Use this Redis (redis://HOST:PORT/DB) instead of an embedded one.")
    ] = None,
) -> None:
    """Run the three services on four simulated GPU nodes and show where each pod goes."""
    with Interrupts() as interrupts:
        from cli.demo import run_demo

        code = run_demo(once=once, as_json=as_json, manifests=manifests, redis_url=redis_url, interrupts=interrupts)
    raise typer.Exit(code)


def main() -> None:
    """Run the command line."""
    app()
