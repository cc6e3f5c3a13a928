"""What can go wrong between us and the API server, as one class: callers differ only in three of its facts.

Every error of aiohttp, asyncio, kubernetes.aio and msgspec becomes a KubeError where it is met (`connection`,
`messages`); nothing else leaves this package. What to do about it is left to the caller.
"""

from fracgpu.errors import FracgpuError


class KubeError(FracgpuError):
    """The API server refused a request, did not answer it, or answered something unusable.

    Attributes:
        status: the HTTP status of the answer, or the code of an ERROR event in a watch; 0 where no answer came.
        kube_reason: `reason` of the answer's metav1.Status, for example ``Conflict`` or ``Expired``; empty where the
            answer carried none.
        outcome_unknown: whether the request was a write that may or may not have happened: it timed out, the
            connection broke after it was sent, or the answer was 500, 502, 503 or 504. Always False for reads.
    """

    reason = "Kubernetes"

    def __init__(self, message: str, *, status: int = 0, kube_reason: str = "", outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.kube_reason = kube_reason
        self.outcome_unknown = outcome_unknown
