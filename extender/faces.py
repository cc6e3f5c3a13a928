"""The extender's two ports: who may reach which app, and over what."""

import asyncio
import ssl
from contextlib import AsyncExitStack
from typing import Self

from starlette.types import ASGIApp

from extender.app import create_app
from extender.callers import Guard, TokenFile
from extender.pages.app import create_pages, create_probes
from extender.pages.feed import Feed
from extender.settings import ExtenderSettings
from extender.verbs import Extender
from fracgpu.process.serving import HttpServer
from fracgpu.process.tls import ServerCertificate


class Faces:
    """Serves the verbs on one port and the pages on another, as an asynchronous context.

    Args:
        settings: where, and with which certificate.
        extender: what is served.
        feed: draws the cluster for the pages.
        metrics: the page for monitoring.

    Raises:
        SettingError: a file cannot be used, or, on entering, an address cannot be listened on.
    """

    def __init__(self, settings: ExtenderSettings, extender: Extender, *, feed: Feed, metrics: ASGIApp) -> None:
        self._feed = feed
        self._certificates: list[ServerCertificate] = []
        verbs: ASGIApp = create_app(extender)
        token = TokenFile(settings.token_file) if settings.token_file is not None else None
        asks_certificate = settings.tls_client_ca is not None
        if asks_certificate or token is not None:
            names = frozenset(settings.tls_client_names)
            verbs = Guard(verbs, asks_certificate=asks_certificate, names=names, token=token)
        pages = create_pages(extender, feed=feed, metrics=metrics) if settings.pages else create_probes(extender)
        self._verbs = self._server(
            verbs,
            settings,
            host=settings.host,
            port=settings.port,
            # Who shows none is let in far enough to show a token.
            clients=ssl.CERT_REQUIRED if token is None else ssl.CERT_OPTIONAL,
            asks_certificate=asks_certificate,
        )
        self._pages = self._server(pages, settings, host=settings.pages_host, port=settings.pages_port)
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        """Where this machine reaches the verbs."""
        return self._verbs.url

    @property
    def pages_url(self) -> str:
        """Where this machine reaches the pages."""
        return self._pages.url

    async def __aenter__(self) -> Self:
        """Begin to serve."""
        async with AsyncExitStack() as stack:
            for server in (self._verbs, self._pages):
                await server.start()
                stack.push_async_callback(server.stop)
            stack.callback(self._feed.close)  # first: nobody else would end what readers follow
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Answer what is under way, and end."""
        await self._stack.aclose()

    async def run(self) -> None:
        """Follow the certificate's files until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for certificate in self._certificates:
                tasks.create_task(certificate.run())

    def _server(
        self,
        app: ASGIApp,
        settings: ExtenderSettings,
        *,
        host: str,
        port: int,
        clients: ssl.VerifyMode = ssl.CERT_NONE,
        asks_certificate: bool = False,
    ) -> HttpServer:
        tls = None
        if settings.tls_cert is not None and settings.tls_key is not None:
            certificate = ServerCertificate(
                cert=settings.tls_cert,
                key=settings.tls_key,
                client_ca=settings.tls_client_ca if asks_certificate else None,
                clients=clients,
            )
            self._certificates.append(certificate)
            tls = certificate.context
        return HttpServer(app, host=host, port=port, tls=tls)
