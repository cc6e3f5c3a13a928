"""A container runtime without containers: enough of the CRI that a real kubelet runs pods on it.

Sandboxes and containers are records; a container "runs" until the kubelet stops it or a test ends it. What the kubelet
asked for (environment, CDI devices, annotations) is kept for the test to read. Every image is there. Left out:
networks, logs, exec, statistics, resource limits, events (the kubelet then polls, once a second).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from playground.node import cri_pb2 as pb
from playground.node import cri_pb2_grpc as pb_grpc

EXIT_SIGTERM = 143

# Labels that the kubelet puts on sandboxes and containers.
LABEL_POD_UID = "io.kubernetes.pod.uid"
LABEL_CONTAINER = "io.kubernetes.container.name"

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(eq=False)
class CriContainer:
    """One container: what the kubelet asked for, and its state; ``removed`` ones are kept for tests only."""

    config: pb.ContainerConfig
    sandbox_id: str
    status: pb.ContainerStatus
    removed: bool = False

    @property
    def is_running(self) -> bool:
        """Whether its process is alive."""
        return self.status.state == pb.CONTAINER_RUNNING


async def end_at_once(_container: CriContainer) -> None:
    """How a well-behaved process reacts to SIGTERM."""


class ContainerRuntimeStub(pb_grpc.RuntimeServiceServicer):
    """The runtime service, and the handles for tests."""

    def __init__(self) -> None:
        self.containers: list[CriContainer] = []  # every container ever created, in order
        self.on_sigterm: Callable[[CriContainer], Awaitable[None]] = end_at_once
        """Awaited after SIGTERM; the process ends when it returns."""
        self._sandboxes: dict[str, pb.PodSandboxStatus] = {}  # ID -> sandbox
        self._server: grpc.aio.Server | None = None

    async def start(self, socket: Path) -> None:
        """Serve the runtime and the image service."""
        self._server = grpc.aio.server()
        pb_grpc.add_RuntimeServiceServicer_to_server(self, self._server)
        pb_grpc.add_ImageServiceServicer_to_server(_Images(socket.parent), self._server)
        self._server.add_insecure_port(f"unix:{socket}")
        await self._server.start()

    async def stop(self) -> None:
        """Close the socket."""
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    # For tests.

    def latest(self, pod_uid: str, name: str) -> CriContainer | None:
        """Return the newest container of that name."""
        for container in reversed(self.containers):
            labels = container.config.labels
            if (labels[LABEL_POD_UID], labels[LABEL_CONTAINER]) == (pod_uid, name):
                return container
        return None

    def finish(self, container: CriContainer, exit_code: int) -> None:
        """End a container's process."""
        if container.is_running:
            status = container.status
            status.state = pb.CONTAINER_EXITED
            status.finished_at = time.time_ns()
            status.exit_code = exit_code
            status.reason = "Completed" if exit_code == 0 else "Error"

    # The runtime service.

    async def Version(self, request: pb.VersionRequest, context: Context) -> pb.VersionResponse:
        """See cri.proto, as for every method below."""
        return pb.VersionResponse(
            version="0.1.0", runtime_name="playground", runtime_version="1.0.0", runtime_api_version="v1"
        )

    async def Status(self, request: pb.StatusRequest, context: Context) -> pb.StatusResponse:
        """Be ready."""
        conditions = [pb.RuntimeCondition(type=kind, status=True) for kind in ("RuntimeReady", "NetworkReady")]
        return pb.StatusResponse(status=pb.RuntimeStatus(conditions=conditions))

    async def RuntimeConfig(self, request: pb.RuntimeConfigRequest, context: Context) -> pb.RuntimeConfigResponse:
        """Name the cgroup driver."""
        return pb.RuntimeConfigResponse(linux=pb.LinuxRuntimeConfiguration(cgroup_driver=pb.CGROUPFS))

    async def UpdateRuntimeConfig(
        self, request: pb.UpdateRuntimeConfigRequest, context: Context
    ) -> pb.UpdateRuntimeConfigResponse:
        """Ignore the pod network."""
        return pb.UpdateRuntimeConfigResponse()

    async def RunPodSandbox(self, request: pb.RunPodSandboxRequest, context: Context) -> pb.RunPodSandboxResponse:
        """Create a sandbox."""
        sandbox = pb.PodSandboxStatus(
            id=secrets.token_hex(32),
            metadata=request.config.metadata,
            state=pb.SANDBOX_READY,
            created_at=time.time_ns(),
            network=pb.PodSandboxNetworkStatus(ip="10.88.0.1"),
            linux=pb.LinuxPodSandboxStatus(namespaces=pb.Namespace(options=pb.NamespaceOption())),
            labels=request.config.labels,
            annotations=request.config.annotations,
        )
        self._sandboxes[sandbox.id] = sandbox
        return pb.RunPodSandboxResponse(pod_sandbox_id=sandbox.id)

    async def StopPodSandbox(self, request: pb.StopPodSandboxRequest, context: Context) -> pb.StopPodSandboxResponse:
        """Stop a sandbox and what still runs in it."""
        for container in self.containers:
            if container.sandbox_id == request.pod_sandbox_id:
                await self._terminate(container)
        if request.pod_sandbox_id in self._sandboxes:
            self._sandboxes[request.pod_sandbox_id].state = pb.SANDBOX_NOTREADY
        return pb.StopPodSandboxResponse()

    async def RemovePodSandbox(
        self, request: pb.RemovePodSandboxRequest, context: Context
    ) -> pb.RemovePodSandboxResponse:
        """Forget a sandbox."""
        self._sandboxes.pop(request.pod_sandbox_id, None)
        return pb.RemovePodSandboxResponse()

    async def PodSandboxStatus(
        self, request: pb.PodSandboxStatusRequest, context: Context
    ) -> pb.PodSandboxStatusResponse:
        """Describe a sandbox."""
        sandbox = self._sandboxes.get(request.pod_sandbox_id)
        if sandbox is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no sandbox {request.pod_sandbox_id}")
        return pb.PodSandboxStatusResponse(status=sandbox)

    async def ListPodSandbox(self, request: pb.ListPodSandboxRequest, context: Context) -> pb.ListPodSandboxResponse:
        """List sandboxes."""
        wanted = request.filter
        items = [
            pb.PodSandbox(
                id=sandbox.id,
                metadata=sandbox.metadata,
                state=sandbox.state,
                created_at=sandbox.created_at,
                labels=sandbox.labels,
                annotations=sandbox.annotations,
            )
            for sandbox in self._sandboxes.values()
            if wanted.id in ("", sandbox.id)
            and (not wanted.HasField("state") or wanted.state.state == sandbox.state)
            and _has_labels(sandbox.labels, wanted.label_selector)
        ]
        return pb.ListPodSandboxResponse(items=items)

    async def CreateContainer(self, request: pb.CreateContainerRequest, context: Context) -> pb.CreateContainerResponse:
        """Create a container."""
        config = request.config
        status = pb.ContainerStatus(
            id=secrets.token_hex(32),
            metadata=config.metadata,
            state=pb.CONTAINER_CREATED,
            created_at=time.time_ns(),
            image=config.image,
            image_ref=config.image.image,
            image_id=config.image.image,
            labels=config.labels,
            annotations=config.annotations,
            log_path=config.log_path,
        )
        self.containers.append(CriContainer(config, request.pod_sandbox_id, status))
        return pb.CreateContainerResponse(container_id=status.id)

    async def StartContainer(self, request: pb.StartContainerRequest, context: Context) -> pb.StartContainerResponse:
        """Start it."""
        status = (await self._existing(request.container_id, context)).status
        status.state = pb.CONTAINER_RUNNING
        status.started_at = time.time_ns()
        return pb.StartContainerResponse()

    async def StopContainer(self, request: pb.StopContainerRequest, context: Context) -> pb.StopContainerResponse:
        """Send SIGTERM and wait for the end, however long it takes."""
        await self._terminate(await self._existing(request.container_id, context))
        return pb.StopContainerResponse()

    async def RemoveContainer(self, request: pb.RemoveContainerRequest, context: Context) -> pb.RemoveContainerResponse:
        """Forget it."""
        for container in self._present():
            if container.status.id == request.container_id:
                container.removed = True
        return pb.RemoveContainerResponse()

    async def ListContainers(self, request: pb.ListContainersRequest, context: Context) -> pb.ListContainersResponse:
        """List containers."""
        wanted = request.filter
        containers = [
            pb.Container(
                id=container.status.id,
                pod_sandbox_id=container.sandbox_id,
                metadata=container.status.metadata,
                image=container.status.image,
                image_ref=container.status.image_ref,
                image_id=container.status.image_id,
                state=container.status.state,
                created_at=container.status.created_at,
                labels=container.status.labels,
                annotations=container.status.annotations,
            )
            for container in self._present()
            if wanted.id in ("", container.status.id)
            and (not wanted.HasField("state") or wanted.state.state == container.status.state)
            and wanted.pod_sandbox_id in ("", container.sandbox_id)
            and _has_labels(container.status.labels, wanted.label_selector)
        ]
        return pb.ListContainersResponse(containers=containers)

    async def ContainerStatus(self, request: pb.ContainerStatusRequest, context: Context) -> pb.ContainerStatusResponse:
        """Describe a container."""
        return pb.ContainerStatusResponse(status=(await self._existing(request.container_id, context)).status)

    async def UpdateContainerResources(
        self, request: pb.UpdateContainerResourcesRequest, context: Context
    ) -> pb.UpdateContainerResourcesResponse:
        """Ignore CPU and memory."""
        return pb.UpdateContainerResourcesResponse()

    async def ListContainerStats(
        self, request: pb.ListContainerStatsRequest, context: Context
    ) -> pb.ListContainerStatsResponse:
        """Measure nothing."""
        return pb.ListContainerStatsResponse()

    def _present(self) -> list[CriContainer]:
        return [container for container in self.containers if not container.removed]

    async def _existing(self, container_id: str, context: Context) -> CriContainer:
        found = next((c for c in self._present() if c.status.id == container_id), None)
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no container {container_id}")
        return found

    async def _terminate(self, container: CriContainer) -> None:
        if container.is_running:
            await self.on_sigterm(container)
            self.finish(container, EXIT_SIGTERM)


class _Images(pb_grpc.ImageServiceServicer):
    """Every image is there, and takes no room."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def ListImages(self, request: pb.ListImagesRequest, context: Context) -> pb.ListImagesResponse:
        return pb.ListImagesResponse()

    async def ImageStatus(self, request: pb.ImageStatusRequest, context: Context) -> pb.ImageStatusResponse:
        name = request.image.image
        return pb.ImageStatusResponse(image=pb.Image(id=name, repo_tags=[name], size=1))

    async def PullImage(self, request: pb.PullImageRequest, context: Context) -> pb.PullImageResponse:
        return pb.PullImageResponse(image_ref=request.image.image)

    async def ImageFsInfo(self, request: pb.ImageFsInfoRequest, context: Context) -> pb.ImageFsInfoResponse:
        usage = pb.FilesystemUsage(
            timestamp=time.time_ns(),
            fs_id=pb.FilesystemIdentifier(mountpoint=str(self._folder)),
            used_bytes=pb.UInt64Value(value=1),
            inodes_used=pb.UInt64Value(value=1),
        )
        return pb.ImageFsInfoResponse(image_filesystems=[usage], container_filesystems=[usage])


def _has_labels(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in wanted.items())
