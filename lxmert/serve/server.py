"""The page over HTTP, for this machine alone.

GET /                              the page
GET /api/start                     models, methods, how many pictures there are
GET /api/images?start=&count=&like=  image ids
GET /api/look?image=ID             regions of a picture, and a split's questions about it
GET /image/ID                      a picture's file
POST /api/ask, /api/page           a question as JSON (`Asked`): the replies; the page with them as a file
Every failure is {"error": message}.
"""

from __future__ import annotations

import errno
import mimetypes
import socketserver
import sys
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from lxmert.files import InputError, parse_json, shown
from lxmert.serve.page import served_page
from lxmert.serve.service import Asked, Service, to_json

HOST = "127.0.0.1"
MOST_BYTES = 64 * 1024  # of a request's body
MOST_DRAINED = 4 * 1024 * 1024  # of a body that is too long, read so that its sender hears why
SECONDS = 30  # that a connection may say nothing


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Server(ThreadingHTTPServer):
    """Serves `service` at 127.0.0.1 until it is shut down.

    Args:
        service: what answers.
        port: 0 for any free one.

    Raises:
        InputError: the port is taken, or none.
    """

    daemon_threads = True
    request_queue_size = 128  # the standard library's 5 turns away a tenth client

    def __init__(self, service: Service, port: int = 0) -> None:
        self.service = service
        self.page, self.policy = served_page()
        try:
            super().__init__((HOST, port), Handler)
        except OverflowError as error:
            raise InputError(f"port {port}: expected 0 to 65535") from error
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            why = "is taken" if error.errno == errno.EADDRINUSE else "is not for everybody"
            raise InputError(
                f"port {port} {why}; choose another with --port, or any free one with --port 0"
            ) from error

    def server_bind(self) -> None:
        """Without looking up this machine's name, which may wait for a network."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/"

    @property
    def hosts(self) -> set[str]:
        """Names under which it is asked: another means that a foreign page's name leads here."""
        return {f"{name}:{self.server_port}" for name in (HOST, "localhost")}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "lxmert", ""
    timeout = SECONDS

    def do_GET(self) -> None:
        """Pages, pictures and lists."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Questions."""
        self._answer(self._post)

    def _answer(self, handle: Callable[[], tuple[str, bytes]]) -> None:
        try:
            if self.headers.get("Host") not in self.server.hosts:
                raise Refused(
                    403, f"the host {shown(self.headers.get('Host'))} is not this server: open {self.server.url}"
                )
            status, (kind, body) = 200, handle()
        except Refused as error:
            status, kind, body = error.status, *as_json({"error": str(error)})
        except FileNotFoundError as error:
            status, kind, body = 404, *as_json({"error": str(error)})
        except InputError as error:
            status, kind, body = 400, *as_json({"error": str(error)})
        except ConnectionError:
            raise
        except Exception as error:
            traceback.print_exc()
            message = f"the server failed ({type(error).__name__}: {error}); its terminal tells where"
            status, kind, body = 500, *as_json({"error": message})
        self._send(status, kind, body)

    def _send(self, status: int, kind: str, body: bytes) -> None:
        if status >= 400:
            self.close_connection = True  # what is left of a request would be read as the next one
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", f"{self.server.policy}; frame-ancestors 'none'")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Of the standard library's checks: as all others, in JSON."""
        self._send(code, *as_json({"error": message or self.responses.get(code, ("error",))[0]}))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal tells of failures alone."""

    # ------------------------------------------------------------------------------------------ GET

    def _get(self) -> tuple[str, bytes]:
        url, service = urlsplit(self.path), self.server.service
        query = parse_qs(url.query)
        if url.path == "/":
            return "text/html; charset=utf-8", self.server.page.encode()
        if url.path == "/api/start":
            return as_json(service.start())
        if url.path == "/api/images":
            start, count = (_number(query, name, default) for name, default in (("start", 0), ("count", 1)))
            return as_json(service.images(start, count, query.get("like", [""])[0]))
        if url.path == "/api/look":
            return as_json(service.look(query.get("image", [])))
        if url.path.startswith("/image/"):
            return self._picture(unquote(url.path.removeprefix("/image/"), errors="replace"))
        raise Refused(404, f"{shown(url.path)}: nothing here; open {self.server.url}")

    def _picture(self, image_id: str) -> tuple[str, bytes]:
        path = self.server.service.gallery.picture(image_id)
        if path is None:
            raise Refused(404, f"{shown(image_id)}: no picture of an image of this name is at hand")
        return mimetypes.guess_type(path.name)[0] or "application/octet-stream", path.read_bytes()

    # ----------------------------------------------------------------------------------------- POST

    def _post(self) -> tuple[str, bytes]:
        body = self._body()
        if self.headers.get("Origin") not in (None, *(f"http://{host}" for host in self.server.hosts)):
            raise Refused(
                403, f"asked by a page of {shown(self.headers['Origin'])}; this server answers its own alone"
            )
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, "expected Content-Type: application/json")
        if self.path not in ("/api/ask", "/api/page"):
            raise Refused(404, f"{shown(self.path)}: nothing to send to; expected /api/ask or /api/page")
        asked = Asked.from_json(parse_json(body, "the request"))
        if self.path == "/api/ask":
            return as_json(self.server.service.ask(asked))
        return "text/html; charset=utf-8", self.server.service.page(asked).encode()

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or not length.isascii() or len(length) > 18:
            raise Refused(411, "expected a body with its Content-Length")
        if int(length) > MOST_BYTES:
            self._drain(min(int(length), MOST_DRAINED))
            raise Refused(
                413,
                f"a request of {int(length):,} bytes; expected {MOST_BYTES:,} or fewer. A question this long is "
                "none that the model could read",
            )
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise Refused(400, f"the request ends after {len(body)} of {int(length)} bytes")
        return body

    def _drain(self, left: int) -> None:
        while left > 0 and (block := self.rfile.read(min(left, 1 << 16))):
            left -= len(block)


def as_json(content: Any) -> tuple[str, bytes]:
    """Content type and body."""
    return "application/json", to_json(content).encode(errors="replace")


def _number(query: dict[str, list[str]], name: str, default: int) -> int:
    text = query.get(name, [str(default)])[0]
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InputError(f"{name}={shown(text)}; expected a number")
    return int(text)
