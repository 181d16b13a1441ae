import json
import socket

import pytest

from ytvis.files import InputError
from ytvis.viewer.content import Content
from ytvis.viewer.server import PAGE_TYPES, ViewerServer


def ask(server, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body that the server answers to the bytes of a request, whatever they are."""
    with socket.create_connection(server.server_address, timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


def get(server, path: str, host: str | None = None, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    host = f"127.0.0.1:{server.server_port}" if host is None else host
    return ask(server, f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1"))


@pytest.fixture
def server(content, serve):
    return serve(content)


def test_only_this_machine_is_listened_to(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_port}/"


def test_the_page_its_data_and_the_frames_are_served(server, content, small_set):
    status, headers, body = get(server, "/")
    assert status == 200 and headers["Content-Type"].startswith("text/html") and b"STMask viewer" in body
    for name, media_type in PAGE_TYPES.items():
        status, headers, body = get(server, f"/{name}")
        assert (status, headers["Content-Type"]) == (200, media_type) and body
    assert json.loads(get(server, "/data/index.json")[2]) == content.index()
    assert json.loads(get(server, "/data/video-0.json")[2]) == json.loads(json.dumps(content.video(0)))
    status, headers, body = get(server, "/frames/0/3.png?again")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert body == (small_set.images / "walk" / "00003.png").read_bytes()


def test_a_head_request_has_the_same_headers_and_no_body(server):
    status, headers, body = get(server, "/frames/0/3.png", method="HEAD")
    length = get(server, "/frames/0/3.png")[1]["Content-Length"]
    assert (status, headers["Content-Length"], body) == (200, length, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/data/index.js",
        "/data/video-2.json",
        "/data/video--1.json",
        "/data/video-99999999999999999999.json",
        "/data/video-0.json/",
        "/data/video-%30.json",
        "/frames/0/6.png",
        "/frames/2/0.png",
        "/frames/1/0.png",  # in the annotation file, but not in the folder
        "/frames/0/0.jpg",
        "/frames/0/0",
        "/frames/walk/00000.png",
        "/frames/0/../../frames/0/0.png",
        "/frames/0/%2e%2e/%2e%2e/secret.png",
        "/frames/0/..%2f..%2fsecret.png",
        "/frames//etc/passwd",
        "/../secret.png",
        "/../../../../../../etc/passwd",
        "/%2e%2e/secret.png",
        "//etc/passwd",
        "/..\\secret.png",
        "/frames/0/0.png%00",
        "/frames/0/\xb2.png",
        "/viewer.css/../viewer.css",
        "/__init__.py",
        "/content.py",
        "http://127.0.0.1/",
        "*",
    ],
)
def test_anything_else_is_not_found(server, small_set, path):
    (small_set.images.parent / "secret.png").write_bytes(b"secret")
    status, _, body = get(server, path)
    assert status == 404 and b"secret" not in body


def test_frames_that_lead_out_of_the_folder_are_not_found(small_set, serve):
    secret = small_set.images.parent / "secret.png"
    secret.write_bytes(b"secret")
    (small_set.images / "link.png").symlink_to(secret)
    names = ["../secret.png", str(secret), "link.png", "walk/../../secret.png", "%2e%2e/secret.png", "./../secret.png"]
    annotations = json.loads(small_set.ann_file.read_text("utf-8"))
    annotations["videos"][0]["file_names"] = names
    small_set.ann_file.write_text(json.dumps(annotations), "utf-8")
    server = serve(Content(small_set.results, small_set.images, small_set.ann_file))
    for frame in range(len(names)):
        status, _, body = get(server, f"/frames/0/{frame}.png")
        assert status == 404 and b"secret" not in body, names[frame]


def test_a_frame_that_went_away_is_not_found(server, small_set):
    (small_set.images / "walk" / "00000.png").unlink()
    assert get(server, "/frames/0/0.png")[0] == 404


def test_hosts_of_other_names_are_refused(server):
    port = server.server_port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}"):
        assert get(server, "/data/index.json", host)[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1.evil.example:{port}", "127.0.0.1:1"):
        status, _, body = get(server, "/data/index.json", host)
        assert status == 421 and b"walk" not in body
    for lines in ("", f"Host: 127.0.0.1:{port}\r\nHost: evil.example\r\n", "Host:\r\n"):
        assert ask(server, f"GET / HTTP/1.1\r\n{lines}\r\n".encode())[0] == 421
    assert ask(server, b"GET / HTTP/1.0\r\n\r\n")[0] == 421


def test_every_answer_has_the_headers_of_a_strict_page(server):
    for path in ("/", "/frames/0/0.png", "/nothing"):
        _, headers, _ = get(server, path)
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
        assert "unsafe" not in headers["Content-Security-Policy"] and policy["frame-ancestors"] == "'none'"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_can_be_changed(server, method):
    assert get(server, "/data/index.json", method=method)[0] == 501


def test_the_page_has_no_script_or_style_in_its_text(server):
    page = get(server, "/")[2].decode()
    assert page.count("<script") == page.count("<script src=")
    assert "<style" not in page and " style=" not in page and " onclick=" not in page
    assert "http://" not in page.replace("http://www.w3.org/", "") and "https://" not in page


def test_a_port_in_use_is_refused(server, content):
    with pytest.raises(InputError, match=f"port {server.server_port} cannot be used"):
        ViewerServer(content, server.server_port)
    with pytest.raises(InputError, match="port 70000"):
        ViewerServer(content, 70000)
