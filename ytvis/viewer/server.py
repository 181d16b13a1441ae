"""Serves the page, its data and the frames to this machine only, and nothing else."""

import json
import logging
import re
import shutil
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from io import BytesIO
from typing import IO

from ytvis.files import InputError
from ytvis.viewer.content import Content
from ytvis.viewer.reading import PICTURE_TYPES

logger = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
PAGE_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "viewer.css": "text/css; charset=utf-8",
    "rle.js": "text/javascript; charset=utf-8",
    "maker.js": "text/javascript; charset=utf-8",
    "worker.js": "text/javascript; charset=utf-8",
    "frames.js": "text/javascript; charset=utf-8",
    "stage.js": "text/javascript; charset=utf-8",
    "timeline.js": "text/javascript; charset=utf-8",
    "viewer.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # The same addresses show other files the next time the viewer is started.
    "Cache-Control": "no-store",
}


def page_file(name: str) -> bytes:
    """The content of one of `PAGE_TYPES`."""
    return (resources.files("ytvis.viewer") / "page" / name).read_bytes()


class ViewerServer(ThreadingHTTPServer):
    """Answers requests for `content` on this machine's own address; `port` 0 takes any free port."""

    daemon_threads = True

    def __init__(self, content: Content, port: int):
        """Raises InputError if the port cannot be used."""
        self.content = content
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"port {port} cannot be used ({reason}); name another --port, 0 for any free one"
            ) from None

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/"

    @property
    def hosts(self) -> set[str]:
        """The names that a request may use for this server; another one belongs to a web page that points here."""
        names = {ADDRESS, "localhost"}
        return {f"{name}:{self.server_port}" for name in names} | (names if self.server_port == 80 else set())


class _Handler(BaseHTTPRequestHandler):
    server: ViewerServer
    protocol_version = "HTTP/1.1"
    server_version = "viewer"
    sys_version = ""
    timeout = 60  # seconds an idle connection is kept

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, with_body)
            return
        try:
            found = self._find(self.path.partition("?")[0])
        except OSError:  # the file went away
            found = None
        if found is None:
            self._refuse(HTTPStatus.NOT_FOUND, with_body)
            return
        media_type, file = found
        with file:
            self._send(HTTPStatus.OK, media_type, file, with_body)

    def _find(self, path: str) -> tuple[str, IO[bytes]] | None:
        """(media type, content) of what `path` names; None if nothing. Names in files never become part of a path."""
        content = self.server.content
        name = path.removeprefix("/") or "index.html"
        if name in PAGE_TYPES:
            return PAGE_TYPES[name], BytesIO(page_file(name))
        if name == "data/index.json":
            return "application/json", _as_file(content.index())
        match = re.fullmatch(r"data/video-([0-9]{1,9})\.json", name)
        if match and int(match[1]) < len(content.videos):
            return "application/json", _as_file(content.video(int(match[1])))
        match = re.fullmatch(r"frames/([0-9]{1,9})/([0-9]{1,9})(\.[a-z]+)", name)
        if match and int(match[1]) < len(content.videos):
            place, frame, suffix = int(match[1]), int(match[2]), match[3]
            if frame < len(content.videos[place]):
                picture = content.frame_path(place, frame)
                if picture is not None and picture.suffix.lower() == suffix:
                    return PICTURE_TYPES[suffix], picture.open("rb")
        return None

    def _send(self, status: HTTPStatus, media_type: str, file: IO[bytes], with_body: bool) -> None:
        length = file.seek(0, 2)
        file.seek(0)
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(length))
        for key, value in HEADERS.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            shutil.copyfileobj(file, self.wfile)

    def _refuse(self, status: HTTPStatus, with_body: bool) -> None:
        self._send(status, "text/plain; charset=utf-8", BytesIO(f"{status.phrase}\n".encode()), with_body)

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            logger.debug("the browser went away")

    def log_message(self, format: str, *values) -> None:
        logger.debug(format, *values)


def _as_file(content: dict) -> BytesIO:
    return BytesIO(json.dumps(content, separators=(",", ":")).encode())
