import threading
from collections.abc import Iterator

import pytest

from tests.ytvis.viewer.small_set import SmallSet, write_small_set
from ytvis.viewer.content import Content
from ytvis.viewer.server import ViewerServer


@pytest.fixture
def small_set(tmp_path) -> SmallSet:
    return write_small_set(tmp_path / "set")


@pytest.fixture
def content(small_set) -> Content:
    return Content(small_set.results, small_set.images, small_set.ann_file, small_set.compare)


@pytest.fixture
def serve() -> Iterator:
    """A function that serves a `Content` until the test ends, and returns the server."""
    servers = []

    def start(content: Content) -> ViewerServer:
        server = ViewerServer(content, port=0)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
