"""``kubectl fracgpu``: its commands and their flags. Heavy parts are imported by the commands that need them."""

from typing import Annotated

import typer

from cli.kubectl.flags import ContextFlag, KubeconfigFlag, NamespaceFlag, Output, OutputFlag, Where

app = typer.Typer(
    name="kubectl fracgpu",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        typer.echo(f"kubectl fracgpu {version('fracgpu')}")
        raise typer.Exit


@app.callback()
def start(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """GPUs shared by video memory: who has which part of which GPU, why a pod waits, and what is wrong."""


@app.command()
def top(
    nodes: Annotated[list[str] | None, typer.Argument(metavar="NODE", help="Default: all.")] = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again at every change.")] = False,
    output: OutputFlag = Output.TABLE,
    kubeconfig: KubeconfigFlag = None,
    context: ContextFlag = "",
) -> None:
    """Show nodes and their GPUs.

    How much memory of each is granted and used; with -o wide, and where a terminal has room for it, by whom.
    """
    from cli.kubectl.session import run
    from cli.kubectl.top import top as command

    run(lambda: command(Where(kubeconfig, context), nodes=nodes or [], output=output, watch=watch))


@app.command()
def pods(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Default: all.")] = None,
    *,
    every_namespace: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")] = False,
    output: OutputFlag = Output.TABLE,
    namespace: NamespaceFlag = "",
    kubeconfig: KubeconfigFlag = None,
    context: ContextFlag = "",
) -> None:
    """Show the pods that ask for GPUs.

    What they asked, were granted and use, and why those wait that do.
    """
    from cli.kubectl.pods import pods as command
    from cli.kubectl.session import run

    where = Where(kubeconfig, context, namespace)
    run(lambda: command(where, names=names or [], every_namespace=every_namespace, output=output))


@app.command()
def explain(
    pod: Annotated[str, typer.Argument(metavar="POD")],
    *,
    output: OutputFlag = Output.TABLE,
    namespace: NamespaceFlag = "",
    kubeconfig: KubeconfigFlag = None,
    context: ContextFlag = "",
) -> None:
    """Say why a pod waits, or what it has.

    While it waits: what each node and GPU lacks, and what would help, the nearest first. On a node: what it was
    granted, and whether that is as it should be.

    Exit status: 0 where it has what it asked for, 3 while it waits, 1 where it failed or does not exist.
    """
    from cli.kubectl.explain import explain as command
    from cli.kubectl.session import run

    run(lambda: command(Where(kubeconfig, context, namespace), name=pod, output=output))


@app.command()
def doctor(
    *,
    output: OutputFlag = Output.TABLE,
    namespace: NamespaceFlag = "",
    kubeconfig: KubeconfigFlag = None,
    context: ContextFlag = "",
) -> None:
    """Check the installation.

    What was found, and how to mend what is wrong: custom resources, webhook, certificates, extender, Redis, scheduler,
    device plugins, units, pods. The namespace (-n) is fracgpu's, where that is not found by itself.

    Exit status: 0 where nothing is wrong, 1 where something is, or nothing could be looked at.
    """
    from cli.kubectl.doctor import doctor as command
    from cli.kubectl.session import run

    run(lambda: command(Where(kubeconfig, context, namespace), output=output))


def main() -> None:
    """Run the plugin."""
    app(prog_name="kubectl fracgpu")
