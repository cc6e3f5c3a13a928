"""The flags that several commands have, as kubectl has them."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

_CLUSTER = "Which cluster"


class Output(StrEnum):
    """How results are printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True, slots=True)
class Where:
    """Which cluster, and which namespace; empty and None where the flag was not given."""

    kubeconfig: Path | None = None
    context: str = ""
    namespace: str = ""


KubeconfigFlag = Annotated[
    Path | None,
    typer.Option("--kubeconfig", help="The kubeconfig file. Default: as kubectl finds it.", rich_help_panel=_CLUSTER),
]
ContextFlag = Annotated[
    str,
    typer.Option("--context", help="The context of it. Default: the current one.", rich_help_panel=_CLUSTER),
]
NamespaceFlag = Annotated[
    str,
    typer.Option("--namespace", "-n", help="The namespace. Default: the context's.", rich_help_panel=_CLUSTER),
]
OutputFlag = Annotated[Output, typer.Option("--output", "-o", help="How to print it.")]
