"""The part of the hub's API over HTTP that pushing an adapter and loading it need, on 127.0.0.1."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import huggingface_hub
import pytest

TOKEN = "hf_a_token_of_the_tests"


@dataclass
class Hub:
    """Repositories by name; each commit holds all files."""

    url: str = ""
    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    """Large files by sha256."""
    status: int | None = None
    """What every request that writes is answered with, where it is not None."""
    requests: list[str] = field(default_factory=list)

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        content = b"".join(name.encode() + one for name, one in sorted(files.items()))
        name = hashlib.sha1(repo.encode() + content).hexdigest()
        self.commits[repo][name] = files
        return name


class Handler(BaseHTTPRequestHandler):
    """Routes as the client library calls them."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"POST {self.path}")
        if self.path.startswith("/api/validate-yaml"):
            return self._json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json({"error": "who are you?"}, 401)
        if self.hub.status is not None:
            return self._json({"error": "no"}, self.hub.status)
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        repo = "/".join(self.path.removeprefix("/api/models").split("/")[1:3]).removesuffix(".git")
        if "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            files = [
                {
                    "path": one["path"],
                    "uploadMode": modes[one["path"].endswith(".safetensors")],
                    "shouldIgnore": False,
                }
                for one in asked
            ]
            return self._json({"files": files})
        if self.path.endswith("/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        if "/commit/" in self.path:
            return self._commit(repo, [json.loads(line) for line in body.splitlines()])
        return self._json({"error": "no such route"}, 404)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.uploads[self.path.rsplit("/", 1)[1]] = body
        self._json({})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        if self.path.startswith("/api/"):
            return self._json({"error": "no such repository"}, 404)
        owner, name, _, revision, file = unquote(self.path).lstrip("/").split("/", 4)
        files = self.hub.commits.get(f"{owner}/{name}", {}).get(revision)
        if files is None or file not in files:
            code = "RepoNotFound" if files is None else "EntryNotFound"
            return self._answer(404, b"", {"X-Error-Code": code})
        content = files[file]
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": revision}
        return self._answer(200, content, headers)

    def _create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked['organization']}/{asked['name']}"
        is_private = asked.get("visibility") == "private" or bool(asked.get("private"))
        if repo in self.hub.commits:
            return self._json(
                {"error": "You already created this model repo", "url": self.hub.url + "/" + repo}, 409
            )
        self.hub.commits[repo], self.hub.private[repo] = {}, is_private
        return self._json({"url": f"{self.hub.url}/{repo}", "name": repo, "id": repo})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {
                **one,
                "authenticated": True,
                "actions": {"upload": {"href": f"{self.hub.url}/upload/{one['oid']}", "header": {}}},
            }
            for one in asked["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
        files = dict(list(self.hub.commits[repo].values())[-1]) if self.hub.commits[repo] else {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
        oid = self.hub.commit(repo, files)
        url = f"{self.hub.url}/{repo}/commit/{oid}"
        self._json({"success": True, "commitUrl": url, "commitOid": oid, "hookOutput": ""})

    def _json(self, value: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def running_hub() -> Iterator[Hub]:
    """The server in a thread."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_hub(hub: Hub, cache: str, patch: pytest.MonkeyPatch) -> None:
    """As a process that starts with HF_ENDPOINT, HF_TOKEN, HF_HUB_CACHE and HF_HUB_DISABLE_XET."""
    constants = huggingface_hub.constants
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # a protocol beside HTTP, for very large files
    patch.setattr(constants, "HF_HUB_CACHE", cache)
    patch.setenv("HF_TOKEN", TOKEN)
