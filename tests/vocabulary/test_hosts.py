"""What pods take of their node's CPU and memory, as kube-scheduler counts it."""

from typing import Any

import msgspec
import pytest

from fracgpu.hosts import HostAmount, amount_of, host_request_of
from fracgpu.pods import Pod


def container(cpu: str = "", memory: str = "", *, limits: dict[str, str] | None = None, always: bool = False) -> Any:
    requests = {name: amount for name, amount in (("cpu", cpu), ("memory", memory)) if amount}
    made: dict[str, Any] = {"name": "c", "resources": {"requests": requests, "limits": limits or {}}}
    return made | ({"restartPolicy": "Always"} if always else {})


def asked(*containers: Any, init: tuple[Any, ...] = (), **spec: Any) -> HostAmount:
    return host_request_of(
        msgspec.convert({"spec": {"containers": list(containers), "initContainers": list(init), **spec}}, Pod)
    )


@pytest.mark.parametrize(
    ("found", "want"),
    [
        (asked(), (0, 0)),
        (asked(container("500m", "1Gi"), container("1.5", "512Mi")), (2000, 1536)),
        (asked(container(limits={"cpu": "2", "memory": "1G"})), (2000, 954)),
        (asked(container("1", limits={"cpu": "2"})), (1000, 0)),
        (asked(container("1"), init=(container("3"),)), (3000, 0)),
        (asked(container("1"), init=(container("2", always=True), container("3"))), (5000, 0)),
        (asked(container("1"), init=(container("3"), container("2", always=True))), (3000, 0)),
        (asked(container("1"), init=(container("250m", always=True),)), (1250, 0)),
        (asked(container("1", "1Gi"), overhead={"cpu": "100m", "memory": "64Mi"}), (1100, 1088)),
        (asked(container("1", "1Gi"), resources={"requests": {"cpu": "4"}}), (4000, 1024)),
        (asked({"name": "c"}), (0, 0)),
        (asked(container("much")), (0, 0)),
    ],
)
def test_what_a_pod_is_counted_for(found: HostAmount, want: tuple[int, int]) -> None:
    assert found == want


def test_amounts_of_a_node() -> None:
    assert amount_of({"cpu": "96", "memory": "393216Mi", "pods": "110"}) == HostAmount(96_000, 393_216)
    assert amount_of(None) == HostAmount(0, 0)


def test_what_asks_nothing_fits_on_a_full_node() -> None:
    assert HostAmount(-5, 100).holds(HostAmount(0, 100))
    assert not HostAmount(-5, 100).holds(HostAmount(1, 100))
