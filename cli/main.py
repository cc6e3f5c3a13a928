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
    kubeconfig: Annotated[
        Path | None,
        typer.Option(help="Write kubectl's file for the simulated cluster here; it is removed at the end."),
    ] = None,
) -> None:
    """Run the three services on four simulated GPU nodes and show where each pod goes."""
    with Interrupts() as interrupts:
        from cli.demo import run_demo

        code = run_demo(
            once=once,
            as_json=as_json,
            manifests=manifests,
            redis_url=redis_url,
            kubeconfig=kubeconfig,
            interrupts=interrupts,
        )
    raise typer.Exit(code)


@app.command()
def playground(
    *,
    directory: Annotated[
        Path, typer.Option(help="Where to put a kubeconfig and the webhook's certificate for the two services.")
    ],
    url: Annotated[str, typer.Option(help="How the services reach the API server: http://HOST:PORT.")],
    webhook_url: Annotated[str, typer.Option(help="Where the webhook serves: https://HOST:PORT.")],
    extender_url: Annotated[str, typer.Option(help="Where the extender answers verbs: http://HOST:PORT.")],
    pages_url: Annotated[str, typer.Option(help="Where it serves its web page: http://HOST:PORT.")],
    host: Annotated[
        str, typer.Option(help="The address to listen on. Whoever connects may do everything with this cluster.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The API server's port.", min=1, max=65535)] = 8001,
    manifests: Annotated[
        Path | None,
        typer.Option(help="A directory of YAML or JSON manifests to apply instead of the examples."),
    ] = None,
) -> None:
    """Run a simulated cluster for a webhook and an extender that run elsewhere, as docker-compose.yml has them."""
    with Interrupts() as interrupts:
        from cli.playground import Options, run_playground

        code = run_playground(
            Options(
                directory=directory,
                host=host,
                port=port,
                url=url,
                webhook_url=webhook_url,
                extender_url=extender_url,
                pages_url=pages_url,
                manifests=manifests,
            ),
            interrupts=interrupts,
        )
    raise typer.Exit(code)


_TRACE = "Replay a trace"
_CLUSTER = "Ask a real cluster"


@app.command()
def replay(
    *,
    nodes: Annotated[Path | None, typer.Option(help="The trace's nodes, as CSV.", rich_help_panel=_TRACE)] = None,
    pods: Annotated[Path | None, typer.Option(help="The trace's pods, as CSV.", rich_help_panel=_TRACE)] = None,
    inflate: Annotated[
        float | None,
        typer.Option(
            help="Draw pods until they ask for so many times the GPUs; 1 leaves the trace as it is. Default: 1.3.",
            rich_help_panel=_TRACE,
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Orders of arrival, as in 42-51 or 1,5,9-12. Default: 42.", rich_help_panel=_TRACE),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Seeds at a time. Default: one per core.", rich_help_panel=_TRACE)
    ] = None,
    placements: Annotated[
        Path | None, typer.Option(help="Write where each pod went into this CSV file.", rich_help_panel=_TRACE)
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the allocation curve and what is left into this PNG file.", rich_help_panel=_TRACE),
    ] = None,
    from_cluster: Annotated[
        bool, typer.Option("--from-cluster", help="Take a cluster as it is now.", rich_help_panel=_CLUSTER)
    ] = False,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="How to reach it. Default: as kubectl does.", rich_help_panel=_CLUSTER)
    ] = None,
    manifests: Annotated[
        Path | None,
        typer.Option(help="A directory of YAML or JSON manifests: would they fit?", rich_help_panel=_CLUSTER),
    ] = None,
    what_if_replicas: Annotated[
        int | None, typer.Option(help="First give every GPU so many seats.", rich_help_panel=_CLUSTER)
    ] = None,
    add_nodes: Annotated[
        int | None, typer.Option(help="First add so many nodes, like the largest.", rich_help_panel=_CLUSTER)
    ] = None,
    like: Annotated[
        str | None, typer.Option(help="The node that added ones are like.", rich_help_panel=_CLUSTER)
    ] = None,
    policy: Annotated[str, typer.Option(help="fragmentation, binpack or spread.")] = "fragmentation",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Place a trace's pods, or ask whether pods would fit into a cluster. Nothing is written to it."""
    with Interrupts() as interrupts:
        from cli.replay import Options, run_replay

        code = run_replay(
            Options(
                nodes=nodes,
                pods=pods,
                policy=policy,
                inflate=inflate,
                seeds=seeds,
                jobs=jobs,
                placements=placements,
                plot=plot,
                as_json=as_json,
                from_cluster=from_cluster,
                kubeconfig=kubeconfig,
                manifests=manifests,
                what_if_replicas=what_if_replicas,
                add_nodes=add_nodes,
                like=like,
            ),
            interrupts=interrupts,
        )
    raise typer.Exit(code)


def main() -> None:
    """Run the command line."""
    app()
