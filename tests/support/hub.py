"""A stub of the hub's HTTP API on loopback: what making a repository and one commit take."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_stub"


class Hub(ThreadingHTTPServer):
    """Keeps what was made and committed."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.made: list[dict] = []
        self.files: dict[str, bytes] = {}
        self.public = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_) -> None:
        pass

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            self.server.made.append(json.loads(text))
            self.answer({"url": f"{self.server.url}/me/clipped"})
        elif self.path.endswith("/preupload/main"):
            files = json.loads(text)["files"]
            self.answer(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for f in files
                    ]
                }
            )
        elif self.path.endswith("/commit/main"):
            for line in map(json.loads, text.splitlines()):
                if line["key"] == "file":
                    said = line["value"]
                    self.server.files[said["path"]] = base64.b64decode(said["content"])
                elif line["key"] == "deletedFile":
                    del self.server.files[line["value"]["path"]]
            self.answer({"commitUrl": f"{self.server.url}/me/clipped/commit/1", "commitOid": "1"})
        else:
            self.answer({"errors": [], "warnings": []})  # of the card's metadata

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == "/api/models/me/clipped":
            self.answer({"id": "me/clipped", "private": not self.server.public})
        elif "/tree/main" in self.path:
            files = self.server.files.items()
            listed = [
                {"type": "file", "path": name, "size": len(content), "oid": "0"}
                for name, content in files
            ]
            self.answer(listed)
        else:
            self.answer({"error": "Repository not found"}, 404)

    def answer(self, values: dict | list, status: int = 200) -> None:
        content = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def hub() -> Iterator[Hub]:
    """Serve until the block ends."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
