"""A local server that speaks the part of the Hub's protocol that uploads and downloads use.

It keeps repositories in memory, and fails on request. `fail` holds pairs of a part of a path and
the failure that happens there once: a status, or "cut" for a connection that ends in the middle.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub:
    """The content of the server, and the requests that it received."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.created: dict[str, dict] = {}
        self.branches: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.tokens: set[str] = set()
        self.fail: list[tuple[str, object]] = []
        self.address = ""

    def is_private(self, name: str) -> bool:
        """Return whether the request that created a repository asked for a private one."""
        asked = self.created[name]  # older clients send the first key, newer ones the second
        return bool(asked.get("private")) or asked.get("visibility") == "private"

    def sha(self, name: str) -> str:
        """Return the commit of a repository, which follows from its content."""
        files = sorted((path, len(data)) for path, data in self.repositories[name].items())
        content = hashlib.sha1(b"".join(self.repositories[name][path] for path, _ in files))
        return hashlib.sha1(repr(files).encode() + content.digest()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def reply(self, content: object = b"", status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.asked.append(f"{self.command} {path}")
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        for i, (part, failure) in enumerate(self.hub.fail):
            if part in f"{self.command} {path}":
                del self.hub.fail[i]
                if failure == "cut":
                    self.send_response(200)
                    self.send_header("Content-Length", "1000000")
                    self.end_headers()
                    self.wfile.write(b"half")
                    self.close_connection = True
                else:
                    self.reply({"error": "told to fail"}, int(str(failure)))
                return
        self.answer(path, body)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def answer(self, path: str, body: bytes) -> None:
        hub, parts = self.hub, path.strip("/").split("/")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = (
                f"{asked['organization']}/{asked['name']}"
                if asked.get("organization")
                else asked["name"]
            )
            exists = name in hub.repositories
            hub.repositories.setdefault(name, {})
            hub.created.setdefault(name, asked)
            self.reply({"url": f"{hub.address}/{name}", "error": "exists"}, 409 if exists else 200)
        elif path == "/api/validate-yaml":
            self.reply({"errors": [], "warnings": []})
        elif path.startswith("/objects/"):
            hub.objects[parts[-1]] = body
            self.reply()
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                one | {"actions": {"upload": {"href": f"{hub.address}/objects/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self.reply({"transfer": "basic", "objects": objects})
        elif path.startswith("/api/models/"):
            self.answer_api("/".join(parts[2:4]), parts[4:], body)
        elif "resolve" in parts:
            self.answer_file("/".join(parts[:2]), "/".join(parts[4:]))
        else:
            self.reply({"error": path}, 404)

    def answer_api(self, name: str, parts: list[str], body: bytes) -> None:
        hub = self.hub
        if name not in hub.repositories:
            self.reply({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            return
        files = hub.repositories[name]
        if not parts or parts[0] == "revision":
            listed = [{"rfilename": path} for path in files]
            self.reply(
                {
                    "id": name,
                    "modelId": name,
                    "sha": hub.sha(name),
                    "siblings": listed,
                    "tags": [],
                    "private": True,
                    "downloads": 0,
                    "likes": 0,
                }
            )
        elif parts[0] == "tree":
            self.reply(
                [
                    {
                        "type": "file",
                        "path": path,
                        "size": len(data),
                        "oid": hashlib.sha1(data).hexdigest(),
                    }
                    for path, data in files.items()
                ]
            )
        elif parts[0] == "branch":
            hub.branches.append(parts[1])
            self.reply()
        elif parts[0] == "preupload":
            large = (".safetensors", ".onnx")
            self.reply(
                {
                    "files": [
                        {
                            "path": one["path"],
                            "shouldIgnore": False,
                            "uploadMode": "lfs" if one["path"].endswith(large) else "regular",
                        }
                        for one in json.loads(body)["files"]
                    ]
                }
            )
        elif parts[0] == "commit":
            for line in map(json.loads, body.decode().splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.objects[value["oid"]]
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            sha = hub.sha(name)
            self.reply(
                {
                    "success": True,
                    "commitUrl": f"{hub.address}/{name}/commit/{sha}",
                    "commitOid": sha,
                }
            )
        else:
            self.reply({"error": "/".join(parts)}, 404)

    def answer_file(self, name: str, path: str) -> None:
        data = self.hub.repositories.get(name, {}).get(path)
        if data is None:
            self.reply({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            return
        self.reply(
            data, ETag=f'"{hashlib.sha256(data).hexdigest()}"', X_Repo_Commit=self.hub.sha(name)
        )


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers at its `address`."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
