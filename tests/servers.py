"""A server on this machine that breaks off, lies, and has moved its files."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Serves `files`; `breaks` is after how many bytes each of the next answers stops.

    `raw` holds whole answers, from the status line on, as blocks of bytes; they are sent as they are.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.raw, self.breaks, self.asked = {}, {}, [], []
        self.sent = 0
        self.ranges, self.etag, self.content_type, self.length = True, '"1"', "application/octet-stream", None

    def handle_error(self, *_):
        """Broken connections are what the tests are about."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append((self.path, wanted))
        if self.path in server.raw:
            self.close_connection = True
            with contextlib.suppress(ConnectionError):  # the other side has heard enough
                for block in server.raw[self.path]:
                    self.wfile.write(block)
                    server.sent += len(block)
            return
        if self.path not in server.files:
            self.send_error(404)
            return
        content = server.files[self.path]
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range", server.etag) == server.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("ETag", server.etag)
        self.send_header("Content-Type", server.content_type)
        self.send_header("Content-Length", str(server.length or len(content) - start))
        self.end_headers()
        stop = server.breaks.pop(0) if server.breaks else len(content)
        self.wfile.write(content[start : start + stop])

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving():
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
