"""The server of the page, reachable only from this machine (loopback interface)."""

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, final
from urllib.parse import parse_qs, urlsplit

from pyro_dpvae.explore.asked import Asked
from pyro_dpvae.explore.state import Explored
from pyro_dpvae.explore.views import VIEWS

__all__ = ["Answer", "ExploreServer", "answer", "is_loopback"]

_LOOPBACK = "127.0.0.1"
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_LONGEST = 60_000  # characters of an address
_MOST = 64  # simultaneous connections; a browser opens six
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n"
    b"Retry-After: 1\r\n\r\n"
)
_PATIENCE = 60  # seconds until a silent connection is closed


@dataclass(frozen=True)
class Answer:
    """An HTTP response.

    Attributes:
        status: the HTTP status.
        kind: the media type.
        body: the content.
    """

    status: int
    kind: str
    body: bytes


def answer(run: Explored, pages: Mapping[str, Answer], target: str) -> Answer:
    """Return the response to a request.

    Args:
        run: the run to explore.
        pages: the files of the page, by their addresses.
        target: the address, from the first slash on.
    """
    if len(target) > _LONGEST:
        return _refusal(414, f"an address must have at most {_LONGEST} characters")
    try:
        path, query = urlsplit(target).path, urlsplit(target).query
    except ValueError as error:
        return _refusal(400, f"the address must be a valid HTTP address: {error}")
    if path in pages:
        return pages[path]
    name = path.removeprefix("/api/")
    if name == path or name not in VIEWS:
        return _refusal(404, "the address does not exist on this page")
    try:
        asked = Asked(parse_qs(query).get("q", ["{}"])[-1])
        found = VIEWS[name](run, asked)
    except ValueError as error:
        return _refusal(400, str(error))
    return _json(200, found)


def is_loopback(host: str | None) -> bool:
    """Return True if a request's Host names this machine, to prevent DNS rebinding.

    Any port is allowed: behind ``ssh -L`` the browser uses another port than the server.

    Example:
        >>> is_loopback("localhost:8000"), is_loopback("evil.example:8000")
        (True, False)
    """
    name, _, port = (host or "").partition(":")
    return name in (_LOOPBACK, "localhost") and (port.isdigit() or host == name)


@final
class ExploreServer(ThreadingHTTPServer):
    """A server for the page of a run; ``serve_forever`` serves one or several browsers.

    Args:
        run: returns the run to explore; called after the port is opened, as it may take minutes.
        port: port of the loopback interface; 0 chooses a free one.

    Raises:
        ValueError: if the port is out of range.
        OSError: if the port cannot be opened.
    """

    daemon_threads = True
    # By default five connections may wait, and a browser whose sixth is dropped tries in seconds.
    request_queue_size = _MOST

    def __init__(self, run: Callable[[], Explored], port: int = 0) -> None:
        self._pages, self._one = _pages(), threading.Lock()
        self._places = threading.BoundedSemaphore(_MOST)
        if not 0 <= port <= 65535:
            raise ValueError(f"port must be from 0 (a free one) to 65535, got {port}")
        try:
            super().__init__((_LOOPBACK, port), _Handler)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise type(error)(
                f"port {port} cannot be opened: {reason}; choose another port, or 0 for a free one"
            ) from error
        try:
            self._run = run()
        except BaseException:
            self.server_close()
            raise

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{_LOOPBACK}:{self.server_port}/"

    def reply(self, target: str, host: str | None) -> Answer:
        """Return the response to a request; requests use the model one at a time."""
        if not is_loopback(host):
            return _refusal(403, f"requests must be addressed to {self.url}")
        with self._one:
            return answer(self._run, self._pages, target)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its own thread, unless there are too many connections."""
        if not self._places.acquire(blocking=False):
            with suppress(OSError):
                request.sendall(_FULL)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection until it ends."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()


class _Handler(BaseHTTPRequestHandler):
    """HTTP of :class:`ExploreServer`."""

    protocol_version = "HTTP/1.1"
    timeout = _PATIENCE
    server: ExploreServer

    def do_GET(self) -> None:
        self._send(self.server.reply(self.path, self.headers.get("Host")))

    def refuse(self) -> None:
        self.close_connection = True  # the body is not read
        self._send(_refusal(405, f"the method must be GET, got {self.command}"))

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = refuse

    def send_error(
        self, code: int, message: str | None = None, explain: str | None = None
    ) -> None:
        """Answer a malformed request, whatever HTTP version it claims."""
        self.request_version, self.close_connection = self.protocol_version, True
        self._send(_refusal(code, f"the request must be HTTP/1.1: {message or code}"))

    def _send(self, what: Answer) -> None:
        with suppress(ConnectionError):  # the browser may have closed the connection
            self.send_response(what.status)
            for name, value in _HEADERS.items():
                self.send_header(name, value)
            self.send_header("Content-Type", what.kind)
            self.send_header("Content-Length", str(len(what.body)))
            if what.status == 405:
                self.send_header("Allow", "GET")
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(what.body)

    def version_string(self) -> str:
        return "dpvae"

    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests: a drag makes hundreds."""


def _pages() -> dict[str, Answer]:
    folder = files("pyro_dpvae.explore") / "page"
    pages = {
        f"/{file.name}": Answer(200, _TYPES[file.name.rpartition(".")[2]], file.read_bytes())
        for file in folder.iterdir()
        if file.name.rpartition(".")[2] in _TYPES
    }
    return pages | {"/": pages["/index.html"]}


def _json(status: int, content: Mapping[str, Any]) -> Answer:
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Answer(status, "application/json", text.encode())


def _refusal(status: int, sentence: str) -> Answer:
    return _json(status, {"error": sentence})
