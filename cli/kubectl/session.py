"""One run of a command: the connection to the API server, and what becomes of errors."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import typer

from cli.kubectl.access import find_entrance
from cli.kubectl.flags import Where
from cli.kubectl.harmless import harmless_text
from fracgpu.errors import FracgpuError, SettingError
from fracgpu.kube.client import KubeClient
from fracgpu.kube.connection import Connection

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_WAITS: Final = 3
_EXIT_INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True)
class Session:
    """An API server, and the namespace that is meant.

    Attributes:
        client: typed requests.
        connection: the same connections, for paths that are no objects.
        namespace: what ``-n`` names, else the context's.
    """

    client: KubeClient
    connection: Connection
    namespace: str


@asynccontextmanager
async def connected(where: Where) -> AsyncIterator[Session]:
    """Connect; nothing is sent yet.

    Raises:
        SettingError: there is no cluster to ask.
    """
    entrance = await find_entrance(kubeconfig=where.kubeconfig, context=where.context)
    connection = Connection(entrance.access)
    try:
        yield Session(KubeClient(connection), connection, where.namespace or entrance.namespace)
    finally:
        await connection.close()


def run(command: Callable[[], Coroutine[Any, Any, int]]) -> NoReturn:
    """Run a command to its end and leave with its exit code; an error is one sentence on standard error."""
    raise typer.Exit(_run(command))


def _run(command: Callable[[], Coroutine[Any, Any, int]]) -> int:
    try:
        code = asyncio.run(command())
        sys.stdout.flush()
    except SettingError as exc:
        tell(f"error: {exc}")
        return EXIT_USAGE
    except FracgpuError as exc:
        tell(f"error: {exc}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    except BrokenPipeError:  # head has seen enough; and Python would complain again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as exc:
        if sys.flags.dev_mode:
            raise
        tell(f"error: a defect of kubectl fracgpu ({type(exc).__name__}: {exc}); PYTHONDEVMODE=1 shows where")
        return EXIT_FAILED
    return code


def tell(sentence: str) -> None:
    """Say something beside the result, in a line."""
    print(" ".join(harmless_text(sentence).split()), file=sys.stderr)
