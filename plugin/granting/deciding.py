"""How an answer to the kubelet about a container is told: in one log line, and as a span where traces are wanted."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Final

from fracgpu.errors import FracgpuError
from fracgpu.process.tracing import record
from plugin.granting.admission import Claim

_DONE: Final = {"prefer": ("preferred", logging.DEBUG), "allocate": ("granted", logging.INFO)}
"""What was asked -> how it is told, and at what level; what is preferred is granted, or refused, right after."""
_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def deciding(call: str, claim: Claim | None, *, began: float, facts: Mapping[str, object]) -> Iterator[None]:
    """Tell of the decision that is made within. An error goes on; ours carries what it is about, for who answers it.

    Args:
        call: prefer or allocate.
        claim: of the container; of what is about none nothing is told.
        began: when the kubelet asked, by `time.perf_counter`.
        facts: what it asked.
    """
    if claim is None:
        yield
        return
    pod = claim.pod
    facts = {"container": claim.container, **facts}
    about = {"pod": pod.key, "uid": pod.uid, "node": pod.spec.node_name, **facts}
    error: Exception | None = None
    try:
        yield
    except Exception as exc:
        error = exc
        raise
    finally:
        seconds = time.perf_counter() - began
        about["ms"] = round(seconds * 1000, 2)
        if isinstance(error, FracgpuError):
            error.about = about
        record(
            call,
            seconds=seconds,
            uid=pod.uid,
            namespace=pod.metadata.namespace,
            pod=pod.metadata.name,
            node=pod.spec.node_name,
            facts=facts,
            error=error,
        )
    done, level = _DONE[call]
    _logger.log(level, done, extra=about)
