"""The MPS control daemon: started, taken over, asked, started again.

The daemon serves all containers of the node, and those lose the GPU when it ends. So it lives longer than this plugin:
a plugin first asks the pipe folder, and uses the daemon that answers there, whoever started it; it starts one, in a
session of its own, only where none answers; and it leaves it running when it ends itself. Where the plugin's container
is the daemon's PID namespace, the daemon dies with that; docs/isolation.md says how to keep it apart.
"""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from fracgpu.errors import FracgpuError, UnavailableError
from fracgpu.names import GpuUuid
from fracgpu.trouble import Backoff, TroubleLog

PROBE: Final = "get_default_active_thread_percentage"
"""A command that every daemon answers and that changes nothing; NVIDIA's own plugin asks the same."""

_ASK_SECONDS: Final = 5.0  # an answer takes some milliseconds; a daemon that hangs must not hang us
_START_SECONDS: Final = 10.0
_QUIT_SECONDS: Final = 5.0
_START_POLL_SECONDS: Final = 0.05
_PATIENCE: Final = 3  # unanswered questions in a row, before a daemon that has not ended counts as lost
_STEADY_SECONDS: Final = 60.0  # a daemon that lived so long is started again without delay
_LOG_LINES: Final = 3

_logger = logging.getLogger(__name__)


class ComputeModes(Protocol):
    """Sets how many processes may use a GPU by themselves. Without the exclusive mode, a process evades MPS."""

    async def set(self, uuid: GpuUuid, *, exclusive: bool) -> None:
        """Let only one process use a GPU (EXCLUSIVE_PROCESS: the MPS server), or any (DEFAULT).

        Raises:
            UnavailableError: NVML refuses.
        """


class MpsDaemon:
    """The daemon of one node.

    Args:
        control: nvidia-cuda-mps-control.
        root: a folder of the host, under the same path here; `pipe`, `log` and `shm` are made in it.
        gpus: which GPUs it serves.
        modes: their compute modes.
        on_change: called when `problem` has become another.
        shared_memory: where the daemon has its shared memory, which its clients have to see as their /dev/shm.
        check_seconds: between two questions whether it is still there.
        backoff: delays between attempts to start it.
    """

    def __init__(
        self,
        control: Path,
        *,
        root: Path,
        gpus: Sequence[GpuUuid],
        modes: ComputeModes,
        on_change: Callable[[], None],
        shared_memory: Path = Path("/dev/shm"),  # noqa: S108 (the name that the driver uses)
        check_seconds: float = 5.0,
        backoff: Backoff | None = None,
    ) -> None:
        self.pipe = root / "pipe"
        self.log = root / "log"
        self.shm = root / "shm"
        self.problem = "the MPS daemon has not answered yet"
        """Why it serves nobody now, as a part of a sentence; empty while it does."""
        self.losses = 0
        """How often it has ended under us."""
        self._control = control
        self._marker = root / "exclusive-gpus"
        self._gpus = tuple(gpus)
        self._modes = modes
        self._on_change = on_change
        self._shared_memory = shared_memory
        self._check_seconds = check_seconds
        self._backoff = backoff or Backoff(initial_seconds=1.0, max_seconds=60.0)
        self._trouble = TroubleLog(_logger, subject="the MPS daemon", clock=time.monotonic)
        self._killed: list[int] = []  # daemons of ours that were killed and may not have ended yet
        self._child: int | None = None  # the daemon's PID, where we have started it

    async def run(self) -> None:
        """Keep a daemon answering until cancelled; it is left running then."""
        while True:
            try:
                await self._prepare()
                await self._take_over_or_start()
            except FracgpuError as exc:
                self._trouble.failed(exc)
                self._say(str(exc))
            else:
                self._trouble.succeeded()
                self._say("")
                since = time.monotonic()
                await self._watch()
                self.losses += 1
                loss = "the MPS daemon has ended; containers that used the GPU through it have to be started again"
                _logger.error("lost", extra={"problem": loss, "losses": self.losses})
                self._say(loss)
                if time.monotonic() - since > _STEADY_SECONDS:
                    self._backoff.reset()
            await asyncio.sleep(self._backoff.next_seconds())

    async def end(self) -> None:
        """End the daemon, also one that an earlier plugin started, and open its GPUs to everybody again.

        Raises:
            FracgpuError: it did not take the command, or a compute mode could not be set.
        """
        try:
            await self.ask(PROBE)
        except UnavailableError:
            pass  # it is not there
        else:
            await self.ask("quit")
            if self._child is not None:
                await self._has_ended(within_seconds=_QUIT_SECONDS)
        for uuid in self._noted():
            await self._modes.set(uuid, exclusive=False)
        self._marker.unlink(missing_ok=True)

    async def ask(self, command: str) -> str:
        """Send one command to the daemon, and return what it answers.

        Raises:
            UnavailableError: there is no daemon, or it does not answer in time.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                self._control,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self._environment(),
            )
        except OSError as exc:
            raise UnavailableError(f"{self._control} cannot be run: {exc.strerror}") from exc
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                output, _ = await process.communicate(f"{command}\n".encode())
        except TimeoutError as exc:
            raise UnavailableError(f"the MPS daemon does not answer {command!r} within {_ASK_SECONDS:g} s") from exc
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        answer = output.decode(errors="replace").strip()
        if process.returncode:
            raise UnavailableError(f"no MPS daemon answers in {self.pipe}: {answer or process.returncode}")
        return answer

    def _say(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            self._on_change()

    async def _prepare(self) -> None:
        """Make the folders, see to the shared memory, and set the compute modes."""
        try:
            for folder in (self.pipe, self.log, self.shm):
                folder.mkdir(parents=True, exist_ok=True)
            self.pipe.chmod(0o755)
            shared = self.shm.samefile(self._shared_memory)
        except OSError as exc:
            raise UnavailableError(f"the MPS daemon's folders cannot be made: {exc}") from exc
        if not shared:
            await self._share_memory()
        try:
            self._marker.write_text("".join(f"{uuid}\n" for uuid in sorted({*self._noted(), *self._gpus})))
        except OSError as exc:
            raise UnavailableError(f"{self._marker} cannot be written: {exc.strerror}") from exc
        for uuid in self._gpus:
            await self._modes.set(uuid, exclusive=True)

    async def _share_memory(self) -> None:
        """Bind our shared memory to where containers get theirs from; it needs the right to mount."""
        try:
            process = await asyncio.create_subprocess_exec(
                "mount",
                "--bind",
                self._shared_memory,
                self.shm,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            output, _ = await process.communicate()
            reason = output.decode(errors="replace").strip() if process.returncode else ""
        except OSError as exc:
            reason = str(exc)
        if reason:
            raise UnavailableError(
                f"{self.shm} and {self._shared_memory} have to be the same memory, seen by the MPS daemon and by its "
                f"clients: mount one tmpfs of the host at both, or give this plugin the right to mount ({reason})"
            )

    async def _take_over_or_start(self) -> None:
        try:
            await self.ask(PROBE)
        except UnavailableError:
            await self._start()
        else:
            if self._child is None:
                _logger.info("an MPS daemon is there already, and is used", extra={"pipe": str(self.pipe)})

    async def _start(self) -> None:
        self._end_child()
        self._child = self._spawn()
        _logger.info("MPS daemon started", extra={"pid": self._child, "pipe": str(self.pipe)})
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not self._reap():
                    with contextlib.suppress(UnavailableError):
                        await self.ask(PROBE)
                        return
                    await asyncio.sleep(_START_POLL_SECONDS)
            said = "it ended at once"
        except TimeoutError:
            said = f"it does not answer within {_START_SECONDS:g} s"
            self._end_child()
        raise UnavailableError(f"the MPS daemon does not start: {said}; its log says: {self._last_words()}")

    def _spawn(self) -> int:
        # Not asyncio's subprocess, which kills its process when the loop ends.
        try:
            return os.posix_spawn(
                self._control,
                [str(self._control), "-f"],
                self._environment(),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,  # no signal that is meant for the plugin's group reaches it
            )
        except OSError as exc:
            raise UnavailableError(f"{self._control} cannot be started: {exc.strerror}") from exc

    async def _watch(self) -> None:
        """Return when the daemon is lost."""
        unanswered = 0
        while unanswered < _PATIENCE:
            if await self._has_ended(within_seconds=self._check_seconds):
                return
            try:
                await self.ask(PROBE)
                unanswered = 0
            except UnavailableError:
                unanswered += 1

    async def _has_ended(self, *, within_seconds: float) -> bool:
        """Wait for the end of the daemon that we started; of another's we learn by asking it."""
        if self._child is None:
            await asyncio.sleep(within_seconds)
            return False
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        descriptor = os.pidfd_open(self._child)
        loop.add_reader(descriptor, ended.set)
        try:
            async with asyncio.timeout(within_seconds):
                await ended.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return self._reap()

    def _reap(self) -> bool:
        """Whether we have no daemon that runs; takes the exit status of one that has ended."""
        self._killed = [pid for pid in self._killed if os.waitpid(pid, os.WNOHANG)[0] == 0]
        if self._child is not None and os.waitpid(self._child, os.WNOHANG)[0] != 0:
            self._child = None
        return self._child is None

    def _end_child(self) -> None:
        """Kill the daemon that we started and that does not answer, to make room for another."""
        if not self._reap() and self._child is not None:
            os.kill(self._child, signal.SIGKILL)
            self._killed.append(self._child)  # it may hang in the driver for long: its exit status is taken later
            self._child = None

    def _environment(self) -> Mapping[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
        return {
            **inherited,
            "CUDA_MPS_PIPE_DIRECTORY": str(self.pipe),
            "CUDA_MPS_LOG_DIRECTORY": str(self.log),
            "CUDA_VISIBLE_DEVICES": ",".join(self._gpus),
        }

    def _noted(self) -> tuple[GpuUuid, ...]:
        """The GPUs that we, or a plugin before us, have closed to others."""
        try:
            return tuple(GpuUuid(line) for line in self._marker.read_text().splitlines() if line)
        except (OSError, UnicodeError):
            return ()

    def _last_words(self) -> str:
        try:
            lines = (self.log / "control.log").read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return " / ".join(lines[-_LOG_LINES:]) or "nothing"
