"""A web server on 127.0.0.1 that answers as told, for the code that downloads."""

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Gives `files` (path → content), with ranges and ETags; `answers` (path → function of the handler) come first.

    `cuts` (path → how many bytes come before the connection is cut, one number for each request) are used up.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.answers: dict = {}
        self.cuts: dict[str, list[int]] = {}
        self.tags: dict[str, str] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []  # path and headers

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.requests.append((self.path, dict(self.headers)))
        self.close_connection = True
        path = self.path.partition("?")[0]
        if path in server.answers:
            server.answers[path](self)
        elif path in server.files:
            self.give(path, server.files[path])
        else:
            self.answer(404, b"Not Found", {"Content-Type": "text/plain"})

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def give(self, path: str, content: bytes) -> None:
        tag = self.server.tags.get(path, '"first"')
        begin, status = 0, 200
        headers = {"ETag": tag, "Content-Type": "application/octet-stream"}
        if self.headers.get("Range") and self.headers.get("If-Range") == tag:
            begin = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            status = 206
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        if begin >= len(content):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        headers["Content-Length"] = str(len(content) - begin)
        cuts = self.server.cuts.get(path)
        end = begin + cuts.pop(0) if cuts else len(content)
        self.answer(status, content[begin:end], headers)


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A running server."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def redirect(url: str, **headers: str):
    """An answer that leads to `url`."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.answer(302, b"", {"Location": url, **names})


def page(handler) -> None:
    """A web page."""
    handler.answer(200, b"<!DOCTYPE html><html>sign in</html>", {"Content-Type": "text/html; charset=utf-8"})


def hang(handler) -> None:
    """Nothing, for longer than a test waits."""
    time.sleep(2)
