"""A real Prometheus that scrapes pages which were read before, each as one instance."""

import contextlib
import http.server
import json
import socket
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.waiting import eventually

_PATIENCE_SECONDS = 30.0


class Prometheus:
    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query; an expression that cannot be evaluated is an AssertionError."""
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/query?{query}", timeout=10) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as exc:
            raise AssertionError(f"{expression}: {exc.read().decode()}") from None
        result: list[dict[str, Any]] = found["data"]["result"]
        return result

    def is_ready(self, targets: int) -> bool:
        """Whether all targets were scraped twice, so that there are rates."""
        with contextlib.suppress(OSError, AssertionError):
            return len(self.query("count_over_time(up[1m]) > 2 and up == 1")) == targets
        return False


@contextlib.contextmanager
def scraping(pages: Mapping[str, str], folder: Path) -> Iterator[Prometheus]:
    """Run it until the context ends; `pages` are by job."""
    with contextlib.ExitStack() as stack:
        jobs = [
            {
                "job_name": job,
                "honor_labels": True,
                "static_configs": [{"targets": [stack.enter_context(_served(page))]}],
            }
            for job, page in pages.items()
        ]
        config = folder / "prometheus.yml"
        config.write_text(
            json.dumps({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs})
        )
        address = f"127.0.0.1:{_free_port()}"
        process = stack.enter_context(
            subprocess.Popen(
                [
                    *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
                    *(f"--web.listen-address={address}", "--log.level=error"),
                ]
            )
        )
        stack.callback(process.terminate)
        running = Prometheus(f"http://{address}")

        def scrapes() -> bool:
            assert process.poll() is None, "Prometheus has ended"
            return running.is_ready(len(pages))

        eventually(scrapes, seconds=_PATIENCE_SECONDS)
        yield running


@contextlib.contextmanager
def _served(page: str) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page.encode()
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody wants to know."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
