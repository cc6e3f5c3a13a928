"""The node's own memory of its grants: a file that survives this process, the kubelet and the API server's objects.

The GPUNode is written after `Allocate` has answered, and everybody with the right may edit or delete it. A pod whose
processes outlive it is then known nowhere else, and after a restart its memory would be given out again. So a grant is
in this file before the kubelet hears of it, and leaves it after it has left the book: the file may say too much, never
too little. It lies in the kubelet's folder for device plugins, of which the kubelet removes nothing but sockets when
it starts.
"""

import logging
import os
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from fracgpu.errors import PlanError, UnavailableError
from fracgpu.gpunodes import GpuNodeSpec, Grant
from fracgpu.names import PodUid
from fracgpu.plans import check_shares
from plugin.granting.book import DeviceIds

JOURNAL: Final = "fracgpu-grants.json"
"""The name of the file."""

_logger = logging.getLogger(__name__)


class Journaled(Struct, frozen=True):
    """What the file says.

    Attributes:
        version: of this format.
        spec: the node's GPUs as they were divided; the grants count in its unit.
        grants: what was given away.
        ids: the device IDs of these grants, where they are known: the kubelet offers those of a pod that it has
            dropped again, while the pod's processes may live on.
    """

    version: Literal[1]
    spec: GpuNodeSpec
    grants: tuple[Grant, ...]
    ids: dict[PodUid, dict[str, tuple[str, ...]]] = {}


class GrantJournal:
    """The journal in one folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL
        self._written: Journaled | None = None  # what is known to be on the disk

    def read(self) -> Journaled | None:
        """What an earlier process wrote; None where nothing was.

        A file that cannot be used is moved aside and None too: whoever could not start because of it would serve
        nobody, and the GPUNode and the kubelet know nearly always the same.
        """
        try:
            journaled = _decoder.decode(self._path.read_bytes())
            for grant in journaled.grants:
                check_shares(grant.containers)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeError, RecursionError, PlanError) as exc:
            self._move_aside(exc)
            return None
        return journaled

    def write(self, spec: GpuNodeSpec, grants: tuple[Grant, ...], *, ids: DeviceIds) -> None:
        """Replace what the file says, in one step; when this returns it is on the disk.

        Args:
            spec: the node's GPUs, in whose division the grants count.
            grants: all of them.
            ids: the device IDs of each.

        Raises:
            UnavailableError: that did not work; the file may say the old or the new.
        """
        entry = Journaled(1, spec, grants, {uid: dict(held) for uid, held in ids.items()})
        if entry == self._written:
            return
        self._written = None
        draft = self._path.with_name(f".{JOURNAL}")
        try:
            with draft.open("wb") as file:
                file.write(msgspec.json.encode(entry))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
            _sync_folder(self._path.parent)
        except OSError as exc:
            raise UnavailableError(
                f"the device plugin cannot write its grants to {self._path} ({exc.strerror}), and a grant that is not "
                "written down may be given out twice: that file system has to be writable and have free space; this "
                "pod stays failed, and its controller makes a new one"
            ) from exc
        self._written = entry

    def _move_aside(self, error: Exception) -> None:
        aside = self._path.with_name(f"{JOURNAL}.unreadable")
        try:
            self._path.replace(aside)
            kept = str(aside)
        except OSError as exc:
            kept = f"{self._path}, as it cannot be moved: {exc.strerror}"
        _logger.error(
            "the journal of grants cannot be read; going on with what the GPUNode and the kubelet say. A deleted pod "
            "whose processes still run may be missing there",
            extra={"error": str(error), "kept": kept},
        )


def _sync_folder(folder: Path) -> None:
    """Bring the renaming itself to the disk."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


_decoder = msgspec.json.Decoder(Journaled)
