"""A container registry of a few lines, for tests of pulls.

It has one image of busybox under every name. The first element of the name says how it behaves: `hang` never answers,
`broken` fails, `absent` is not there, `other` is for another architecture.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.docker_engine import root_file_system

LOGIN = ("user", "pass:word")
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@cache
def _image(arch: str, files: bytes) -> tuple[bytes, dict[str, bytes]]:
    """The manifest of an image of these files, and its blobs by digest."""
    layer = gzip.compress(files, 1, mtime=0)
    history = {"created": "2026-01-01T00:00:00Z", "created_by": "tests"}
    config = json.dumps(
        {
            "architecture": arch,
            "os": "linux",
            "created": history["created"],
            "config": {"Env": ["OF_IMAGE=pulled"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(files)]},
            "history": [history],
        }
    ).encode()

    def described(kind: str, blob: bytes) -> dict[str, object]:
        media = f"application/vnd.docker.{kind}"
        return {"mediaType": media, "size": len(blob), "digest": _digest(blob)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": described("container.image.v1+json", config),
        "layers": [described("image.rootfs.diff.tar.gzip", layer)],
    }
    return json.dumps(manifest).encode(), {_digest(blob): blob for blob in (config, layer)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@contextlib.contextmanager
def registry(*, private: bool = False, files: bytes = b"") -> Iterator[str]:
    """Serve on loopback, with `private` only to those who log in; yield the address.

    `files` is a tar of what the image has; without it, busybox.
    """
    files = files or root_file_system()
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            name = self.path.removeprefix("/v2/")
            kind = name.partition("/")[0]
            manifest, blobs = _image("arm64" if kind == "other" else "amd64", files)
            if kind == "hang":
                ended.wait()
            elif private and self.headers.get("Authorization") != _basic():
                self._send(401, b"{}", {"WWW-Authenticate": 'Basic realm="tests"'})
            elif kind == "broken":
                self._send(500, b'{"errors": [{"code": "UNKNOWN", "message": "out of order"}]}')
            elif kind == "absent":
                self._send(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}')
            elif "/manifests/" in name:
                self._send(200, manifest, {"Content-Type": _MANIFEST, "Docker-Content-Digest": _digest(manifest)})
            elif "/blobs/" in name:
                self._send(200, blobs[name.rpartition("/")[2]])
            else:
                self._send(200, b"{}")

        def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for header, value in (headers or {}).items():
                self.send_header(header, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _basic() -> str:
    return f"Basic {base64.b64encode(':'.join(LOGIN).encode()).decode()}"
