"""How a review is told: in one log line, and as a span where traces are wanted."""

import logging
import time
from typing import Final

from fracgpu.process.tracing import record
from webhook.reviews import Outcome, Verdict

_QUIET: Final = (Outcome.UNCONCERNED, Outcome.SILENT)
"""Nothing was decided about these: most pods of a cluster ask for no GPU."""
_logger = logging.getLogger(__name__)


def tell(verdict: Verdict, *, began: float, traceparent: str) -> None:
    """Tell of a review that has been answered.

    A pod has no UID yet when it is reviewed, and perhaps no name: the review's own UID is in the API server's audit
    log too.

    Args:
        verdict: what became of it.
        began: when it had arrived, by `time.perf_counter`.
        traceparent: the header of that name; kube-apiserver sends it where it is traced itself.
    """
    seconds = time.perf_counter() - began
    about = verdict.about
    facts: dict[str, object] = {"kind": about.kind, "review": about.review, "outcome": str(verdict.outcome)}
    facts |= {"language": verdict.language} if verdict.language else {}
    facts |= {"reason": str(verdict.reason)} if verdict.reason is not None else {}
    facts |= {"sentence": about.sentence} if about.sentence else {}
    level = logging.DEBUG if verdict.outcome in _QUIET else logging.INFO
    subject = f"{about.namespace}/{about.name}"
    _logger.log(level, "reviewed", extra={"object": subject, **facts, "ms": round(seconds * 1000, 2)})
    is_pod = about.kind == "Pod"
    record(
        "review",
        seconds=seconds,
        uid="",
        namespace=about.namespace,
        pod=about.name if is_pod else "",
        facts=facts if is_pod else {**facts, "object": subject},
        traceparent=traceparent,
    )
