"""Decides how a container gets to see the GPUs it was lent: what NVIDIA's device plugin would answer.

`prepare` looks at the node and writes the CDI specification where one is needed; `edits` only computes, because the
kubelet admits no pod while it waits for it. Left out: keeping a container within its share (`isolation`).
"""

import logging
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from fracgpu.errors import UnavailableError
from fracgpu.names import CDI_KIND, GpuUuid
from plugin.gpus.cards import Card
from plugin.handout import DeviceNode, Edits, Mount
from plugin.injection.driver import find_driver
from plugin.injection.nodes import NodeTable, find_nodes, is_on_host
from plugin.injection.specfiles import OwnSpecFile, Provided, find_provided
from plugin.injection.specification import (
    OWN_KIND,
    Specification,
    is_device_name,
    make_specification,
    still_described,
)
from plugin.settings import DeviceListStrategy

VISIBLE_DEVICES: Final = "NVIDIA_VISIBLE_DEVICES"
DEVICE_MOUNTS: Final = "/var/run/nvidia-container-devices"
"""The folder of a container in which the NVIDIA runtime reads the names of GPUs, if it is set up to."""

_CDI_STRATEGIES: Final = frozenset({"cdi-annotations", "cdi-cri"})
_NEVER: Final = "it is not known yet how containers are to see this node's GPUs; trying again in a moment helps"
_UNFIT: Final = "{!r} is no name that CDI allows for a device; device_list_strategy envvar has no such limit"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Ready:
    """What `prepare` has found out.

    Attributes:
        nodes: the device nodes.
        devices: the qualified CDI names of the GPUs that a runtime can resolve.
        kind: of those devices; empty where none are prepared.
        trouble: why a GPU is in neither of them.
    """

    nodes: NodeTable = field(default_factory=NodeTable)
    devices: Mapping[GpuUuid, str] = field(default_factory=dict)
    kind: str = ""
    trouble: str = _NEVER


class Injector:
    """How containers of one node see GPUs.

    `prepare` and `retire` read and write files, and are called one at a time; `edits` may be called meanwhile.

    Args:
        strategies: how the runtime is told (device_list_strategy), one or several.
        id_strategy: what GPUs are called there.
        pass_device_specs: whether to hand out device nodes too; never with CDI strategies alone, which do that.
        driver_root: where the driver's files lie on the host.
        cdi_spec_dir: where our own CDI specification is written.
        cdi_hook_path: the container toolkit's hook on the host.
        host_root: where this process sees the host's root folder.
        proc_root: where it sees ``/proc``.
        cdi_dirs: where runtimes read CDI specifications, the least important folder first.
    """

    def __init__(
        self,
        *,
        strategies: Collection[DeviceListStrategy],
        id_strategy: Literal["uuid", "index"],
        pass_device_specs: bool,
        driver_root: Path,
        cdi_spec_dir: Path,
        cdi_hook_path: Path,
        host_root: Path = Path("/"),
        proc_root: Path = Path("/proc"),
        cdi_dirs: Sequence[Path] = (Path("/etc/cdi"), Path("/var/run/cdi")),
    ) -> None:
        self._strategies = frozenset(strategies)
        self._has_cdi = bool(self._strategies & _CDI_STRATEGIES)
        self._only_cdi = self._strategies <= _CDI_STRATEGIES
        self._id_strategy = id_strategy
        self._passes_nodes = pass_device_specs and not self._only_cdi
        self._driver_root = driver_root
        self._hook = cdi_hook_path
        self._host_root = host_root
        self._proc_root = proc_root
        self._own = OwnSpecFile(cdi_spec_dir)
        self._cdi_dirs = tuple(dict.fromkeys((*cdi_dirs, cdi_spec_dir)))
        self._ready = _Ready()

    @property
    def problems(self) -> Mapping[GpuUuid, str]:
        """Of the GPUs that `edits` will refuse though `prepare` succeeded, why."""
        ready = self._ready
        return {
            gpu: problem
            for gpu, problem in ready.nodes.problems.items()
            if self._passes_nodes or (self._has_cdi and gpu not in ready.devices)
        }

    def prepare(self, cards: Sequence[Card], *, driver_version: str) -> None:
        """Get ready to hand out these GPUs; to be repeated when GPUs or the driver change, and after a failure.

        Devices of the kind nvidia.com/gpu are used where others provide all that are needed, else our own.

        Raises:
            UnavailableError: the driver's files are not there, or the specification cannot be written. GPUs that the
                old one describes as the new one would are still handed out.
        """
        if not cards or not (self._has_cdi or self._passes_nodes):
            return
        nodes = find_nodes(cards, driver_root=self._driver_root, host_root=self._host_root, proc_root=self._proc_root)
        if not self._has_cdi:
            self._ready = _Ready(nodes)
            return
        provided = find_provided(self._cdi_dirs)
        sound = {self._name(card) for card in cards if not card.problem}
        if sound and sound <= provided.names:
            names = {card.uuid: self._name(card) for card in cards if self._name(card) in provided.names}
            self._become(nodes, names=names, kind=CDI_KIND, provided=provided)
        else:
            self._describe(cards, nodes=nodes, driver_version=driver_version, provided=provided)

    def retire(self) -> None:
        """Remove our own specification where it is not in use.

        To be called only while no pod of this node holds a GPU: the kubelet starts a container again with the names
        that it was given, and those have to be known then.

        Raises:
            UnavailableError: that did not work.
        """
        if not self._has_cdi or self._ready.kind == CDI_KIND:
            self._own.remove()

    def edits(self, cards: Sequence[Card]) -> Edits:
        """What makes a container see just these GPUs, each once.

        Raises:
            UnavailableError: one of them is not prepared; the sentence says why.
        """
        ready = self._ready
        unique = list({card.uuid: card for card in cards}.values())
        names = [self._name(card) for card in unique]
        env: dict[str, str] = {}
        mounts: tuple[Mount, ...] = ()
        devices: tuple[DeviceNode, ...] = ()
        annotations: dict[str, str] = {}
        cdi_devices: tuple[str, ...] = ()
        if self._has_cdi:
            qualified = tuple(self._resolvable(card, ready=ready) for card in unique)
            if "cdi-annotations" in self._strategies:
                annotations = _annotations(qualified)
            if "cdi-cri" in self._strategies:
                cdi_devices = qualified
        if self._only_cdi:
            # NVIDIA's plugin leaves this to the specification; a runtime that does not know CDI would inject all.
            env[VISIBLE_DEVICES] = "void"
        if "envvar" in self._strategies:
            env[VISIBLE_DEVICES] = ",".join(names)
        if "volume-mounts" in self._strategies:
            env[VISIBLE_DEVICES] = DEVICE_MOUNTS
            mounts = tuple(Mount("/dev/null", f"{DEVICE_MOUNTS}/{name}", read_only=False) for name in names)
        if self._passes_nodes:
            own = [node for card in unique for node in _nodes_of(card, ready=ready)]
            devices = tuple(dict.fromkeys((*ready.nodes.control, *own)))
        return Edits(env, mounts, devices, annotations, cdi_devices)

    def _name(self, card: Card) -> str:
        return card.index_name if self._id_strategy == "index" else card.uuid

    def _resolvable(self, card: Card, *, ready: _Ready) -> str:
        name = ready.devices.get(card.uuid)
        # A name in a MIG instance's place can have moved with the index since; then it is not the prepared one.
        if name is None or not name.endswith(f"={self._name(card)}"):
            raise UnavailableError(ready.nodes.problems.get(card.uuid) or ready.trouble)
        return name

    def _describe(self, cards: Sequence[Card], *, nodes: NodeTable, driver_version: str, provided: Provided) -> None:
        """Make our own specification say what there is, or keep what is still right of it."""
        names = {card.uuid: self._name(card) for card in cards if card.uuid in nodes.of_gpu}
        unfit = {gpu: name for gpu, name in names.items() if not is_device_name(name)}
        nodes = replace(nodes, problems={**nodes.problems, **{gpu: _UNFIT.format(unfit[gpu]) for gpu in unfit}})
        names = {gpu: name for gpu, name in names.items() if gpu not in unfit}
        wanted: Specification | None = None
        try:
            if not names:
                sentences = "; ".join(nodes.problems.values())
                raise UnavailableError(f"there is no GPU that a CDI specification could describe: {sentences}")
            driver = find_driver(driver_version, driver_root=self._driver_root, host_root=self._host_root)
            wanted = make_specification(
                {name: nodes.of_gpu[gpu] for gpu, name in names.items()},
                control=nodes.control,
                driver=driver,
                hook=self._hook if is_on_host(self._hook, host_root=self._host_root) else None,
            )
            if self._own.read() != wanted:
                self._own.write(wanted)
        except UnavailableError as exc:
            there = self._own.read()
            right = still_described(wanted, by=there) if wanted is not None and there is not None else frozenset()
            kept = {card.uuid: f"{CDI_KIND}={name}" for card in cards if (name := self._name(card)) in provided.names}
            kept |= {gpu: f"{OWN_KIND}={name}" for gpu, name in names.items() if name in right}
            self._ready = _Ready(nodes, kept, OWN_KIND, str(exc))
            raise
        self._become(nodes, names=names, kind=OWN_KIND, provided=provided)

    def _become(self, nodes: NodeTable, *, names: Mapping[GpuUuid, str], kind: str, provided: Provided) -> None:
        if kind != self._ready.kind:
            _logger.info(
                "containers are given CDI devices of this kind",
                extra={"kind": kind, "devices": len(names), "unreadable": provided.unreadable},
            )
        trouble = (
            "no CDI specification on this node describes this GPU; NVIDIA's toolkit writes one of all GPUs that answer "
            "(nvidia-ctk cdi generate)"
        )
        self._ready = _Ready(nodes, {gpu: f"{kind}={name}" for gpu, name in names.items()}, kind, trouble)


def _nodes_of(card: Card, *, ready: _Ready) -> tuple[DeviceNode, ...]:
    nodes = ready.nodes.of_gpu.get(card.uuid)
    if nodes is None:
        raise UnavailableError(ready.nodes.problems.get(card.uuid) or _NEVER)
    return nodes


def _annotations(devices: tuple[str, ...]) -> dict[str, str]:
    """Ask for CDI devices by annotation.

    Runtimes read every key with this prefix. NVIDIA's plugin ends the key in a random UUID, so that two answers for
    one container do not collide; here it is made of the devices: equal keys then have equal values.
    """
    value = ",".join(devices)
    return {f"cdi.k8s.io/fracgpu-device-plugin_{uuid.uuid5(uuid.NAMESPACE_OID, value)}": value} if devices else {}
