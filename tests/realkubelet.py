"""A real kubelet against a real API server, on the CRI stub: pods run without containers.

The kubelet looks for device plugins in /var/lib/kubelet/device-plugins, whatever its root directory. So it runs in a
mount namespace of its own (which takes root), where that folder is ours; plugins outside reach the same sockets under
their real path.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from fracgpu.names import NodeName, PodUid
from playground.node.cri import ContainerRuntimeStub, CriContainer
from tests.httpcluster import HttpCluster
from tests.nodebench import PATIENCE_SECONDS, ContainerView
from tests.realcluster import RealControlPlane, User, assets_dir, missing_binaries

NODE = NodeName("real-1")
KUBELET_USER = User(f"system:node:{NODE}", ("system:nodes",))

_ENTER = """
set -e
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /var/log
mkdir /var/lib/kubelet
mount --bind "$1" /var/lib/kubelet
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \\
        kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    name=${setting%=*}
    echo "${setting#*=}" > "/var/lib/${name##*/}"
    mount --bind "/var/lib/${name##*/}" "/proc/sys/$name"
done
shift
exec "$@"
"""
"""Run in a fresh mount namespace: nothing of this is seen, or left, outside. A kubelet sets some of the kernel's
settings; here it finds them as it wants them, and leaves the machine's alone."""


def missing_for_real_kubelet() -> str:
    """Say, as a reason for skipping, why no real kubelet can run here; empty if one can."""
    if os.geteuid() != 0:
        return "a real kubelet needs root"
    if shutil.which("unshare") is None:
        return "a real kubelet needs unshare (util-linux)"
    return missing_binaries("etcd", "kube-apiserver", "kubelet")


class RealKubelet:
    """One kubelet process and its runtime; the runtime's containers outlive a restart of the kubelet.

    Args:
        folder: for everything; keep it short, Unix socket paths end at 107 bytes.
        kubeconfig: how the kubelet reaches the API server, as ``KUBELET_USER``.
        node_name: the Node that it registers.
    """

    def __init__(self, folder: Path, *, kubeconfig: Path, node_name: NodeName = NODE) -> None:
        self.runtime = ContainerRuntimeStub()
        self.root = folder / "k"  # what the kubelet sees as /var/lib/kubelet
        self.plugins_folder = self.root / "device-plugins"
        self.pod_resources_socket = self.root / "pod-resources" / "kubelet.sock"
        self.log = folder / "kubelet.log"
        self._node_name = node_name
        self._folder = folder
        self._kubeconfig = kubeconfig
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the runtime and the kubelet, and return when plugins may register."""
        self.root.mkdir(parents=True)
        await self.runtime.start(self._folder / "cri.sock")
        (self._folder / "kubelet.yaml").write_text(json.dumps(self._configuration()))
        await self._start_process()

    async def stop(self) -> None:
        """End both."""
        await self._stop_process()
        await self.runtime.stop()

    async def restart(self) -> None:
        """Replace the kubelet process; containers keep running."""
        await self._stop_process()
        (self.plugins_folder / "kubelet.sock").unlink(missing_ok=True)  # so that the new one can be waited for
        await self._start_process()

    async def _start_process(self) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *("unshare", "--mount", "sh", "-c", _ENTER, "sh", str(self.root)),
                str(assets_dir() / "kubelet"),
                f"--config={self._folder / 'kubelet.yaml'}",
                f"--kubeconfig={self._kubeconfig}",
                f"--hostname-override={self._node_name}",
                f"--cert-dir={self._folder / 'pki'}",
                "--v=2",
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self._folder,
            )
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (self.plugins_folder / "kubelet.sock").exists():
                if self._process.returncode is not None:
                    raise RuntimeError(f"the kubelet ended:\n{self.log.read_text()[-3000:]}")
                await asyncio.sleep(0.1)

    async def _stop_process(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            if process.returncode is None:
                process.terminate()
            await process.wait()

    def _configuration(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{self._folder / 'cri.sock'}",
            "podLogsDir": str(self._folder / "logs"),
            "enableServer": False,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            # No container has a cgroup here, so none are set up; and machines with cgroup v1 will do.
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "enableControllerAttachDetach": False,
            "makeIPTablesUtilChains": False,
            "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
            "resolvConf": "",
            # Often enough for a test to wait for.
            "nodeStatusUpdateFrequency": "1s",
            "syncFrequency": "1s",
        }


class RealBench:
    """A real kubelet and control plane as a ``NodeBench``."""

    def __init__(self, folder: Path) -> None:
        self.node_name = NODE
        self.control_plane = RealControlPlane(folder / "cp", users=[KUBELET_USER])
        self.cluster: HttpCluster
        self.kubelet: RealKubelet
        self._folder = folder

    @property
    def plugins_folder(self) -> Path:
        return self.kubelet.plugins_folder

    @property
    def pod_resources(self) -> Path:
        return self.kubelet.pod_resources_socket

    async def start(self) -> None:
        await asyncio.to_thread(self.control_plane.start)
        self.cluster = HttpCluster(
            self.control_plane.url, token=self.control_plane.token, context=self.control_plane.client_ssl()
        )
        self.kubelet = RealKubelet(self._folder, kubeconfig=self.control_plane.kubeconfig(KUBELET_USER))
        await self.kubelet.start()

    async def stop(self) -> None:
        await self.kubelet.stop()
        await self.cluster.close()
        await asyncio.to_thread(self.control_plane.stop)

    async def restart(self) -> None:
        await self.kubelet.restart()

    def container(self, pod_uid: PodUid, name: str) -> ContainerView:
        found = self._newest(pod_uid, name)
        return ContainerView(
            env=tuple((entry.key, entry.value.decode()) for entry in found.config.envs),
            cdi_devices=tuple(device.name for device in found.config.CDI_devices),
            id=found.status.id,
            alive=found.is_running,
        )

    def let_processes_live_on(self) -> Callable[[], None]:
        may_end = asyncio.Event()

        async def wait(_container: CriContainer) -> None:
            await may_end.wait()

        self.kubelet.runtime.on_sigterm = wait
        return may_end.set

    def finish(self, pod_uid: PodUid, name: str, exit_code: int) -> None:
        container = self._newest(pod_uid, name)
        if not container.status.started_at:
            raise KeyError(f"container {name} of pod {pod_uid} has not started")
        self.kubelet.runtime.finish(container, exit_code)

    def _newest(self, pod_uid: PodUid, name: str) -> CriContainer:
        found = self.kubelet.runtime.latest(pod_uid, name)
        if found is None:
            raise KeyError(f"no container {name} of pod {pod_uid}")
        return found
