"""How a verb's decision on a pod is told: in one log line, and as a span where traces are wanted."""

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Final

from fracgpu.errors import FracgpuError
from fracgpu.names import PodUid
from fracgpu.process.tracing import span

Facts = dict[str, object]
"""What was decided, name -> value."""

_DONE: Final = {"filter": "filtered", "prioritize": "prioritized", "preempt": "chose victims", "bind": "bound"}
_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def deciding(verb: str, *, namespace: str, name: str, uid: PodUid) -> Iterator[Facts]:
    """Tell of the decision that is made within, with the facts that are put into what is yielded.

    An error goes on, and carries what it is about; whoever answers it logs it.

    Args:
        verb: filter, prioritize, preempt or bind.
        namespace: the pod's.
        name: its name.
        uid: its UID.
    """
    began = time.perf_counter()
    facts: Facts = {}
    about = {"pod": f"{namespace}/{name}", "uid": uid}
    with span(verb, uid=uid, namespace=namespace, pod=name) as traced:
        try:
            yield facts
        except FracgpuError as exc:
            exc.about = {**about, **facts, "ms": _since(began)}
            raise
        finally:
            traced.note(facts)
    _logger.info(_DONE[verb], extra={**about, **facts, "ms": _since(began)})


def _since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 2)
