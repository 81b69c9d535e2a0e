"""A stand-in for the Hub's HTTP interface: what `create_repo` and `upload_folder` ask for, and failures on demand.

Files lie under `folder/<owner>/<name>/`, one version of each, as the last commit left them. Weights (`*.safetensors`,
`*.bin`, `*.pt`) and pictures go the way of large files: to the store first, and a commit only names them.

    POST /api/repos/create                        name and owner -> url
    POST /api/validate-yaml                       the card's metadata
    POST /api/models/<repo>/preupload/<revision>  which files are large
    POST /<repo>.git/info/lfs/objects/batch       where to put large files
    PUT  /store/<oid>
    POST /api/models/<repo>/commit/<revision>     the commit, a JSON object a line
"""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


OWNER = "tester"
LARGE = (".safetensors", ".bin", ".pt", ".pth", ".png")


class Hub(ThreadingHTTPServer):
    """
    Args:
        folder (`Path`): where repositories are kept.
        failing_commits (`Iterable[int]`): commits, counted from 1, that are answered with an error 500.
        refused_once (`str`, *optional*): the first commit with this in its message is answered so as well.
        dropped_commits (`Iterable[int]`): commits of which half is read before the connection is cut.
        dropped_uploads (`Iterable[int]`): the same for large files.
    """

    daemon_threads = True

    def __init__(self, folder: Path, failing_commits=(), refused_once=None, dropped_commits=(), dropped_uploads=()):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.failing_commits, self.refused_once = folder, failing_commits, refused_once
        self.dropped_commits, self.dropped_uploads = dropped_commits, dropped_uploads
        self.commits = []  # summary and paths of each that succeeded
        self.num_commits = self.num_uploads = 0  # attempts
        self.store: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that went away is part of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        with self.server.lock:
            self.server.tokens.add(self.headers.get("Authorization"))
            path = self.path.split("?")[0].strip("/").split("/")
            if path[-2:-1] == ["commit"]:
                self._commit("/".join(path[2:4]))
                return
            request = json.loads(self._body())
            if path == ["api", "repos", "create"]:
                owner = request.get("organization") or OWNER
                (self.server.folder / owner / request["name"]).mkdir(parents=True, exist_ok=True)
                self._answer({"url": f"{self.server.url}/{owner}/{request['name']}"})
            elif path == ["api", "validate-yaml"]:
                assert request["content"].startswith("---\n")
                self._answer({"errors": [], "warnings": []})
            elif path[-2:-1] == ["preupload"]:
                self._answer({"files": [self._mode(file["path"]) for file in request["files"]]})
            elif path[-2:] == ["objects", "batch"]:
                self._answer({"transfer": "basic", "objects": [self._where(entry) for entry in request["objects"]]})
            else:
                self._answer({"error": f"the stand-in does not know {self.path}"}, status=404)

    def do_PUT(self):
        with self.server.lock:
            self.server.num_uploads += 1
            if self.server.num_uploads in self.server.dropped_uploads:
                self._drop()
                return
            content = self._body()
            oid = self.path.rsplit("/", 1)[-1]
            assert hashlib.sha256(content).hexdigest() == oid
            self.server.store[oid] = content
            self._answer({})

    def _commit(self, repo: str) -> None:
        self.server.num_commits += 1
        if self.server.num_commits in self.server.dropped_commits:
            self._drop()
            return
        body = self._body()
        header, *operations = [json.loads(line) for line in body.splitlines()]
        refused = self.server.refused_once is not None and self.server.refused_once in header["value"]["summary"]
        if refused or self.server.num_commits in self.server.failing_commits:
            self.server.refused_once = None if refused else self.server.refused_once
            self._answer({"error": "the stand-in fails as it was told to"}, status=500)
            return
        for operation in operations:
            value = operation["value"]
            large = operation["key"] == "lfsFile"
            content = self.server.store[value["oid"]] if large else base64.b64decode(value["content"])
            path = self.server.folder / repo / value["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        paths = {operation["value"]["path"] for operation in operations}
        self.server.commits.append((header["value"]["summary"], paths))
        oid = hashlib.sha1(body).hexdigest()
        self._answer({"commitUrl": f"{self.server.url}/{repo}/commit/{oid}", "commitOid": oid})

    def _mode(self, path: str) -> dict:
        return {"path": path, "uploadMode": "lfs" if path.endswith(LARGE) else "regular", "shouldIgnore": False}

    def _where(self, entry: dict) -> dict:
        known = entry["oid"] in self.server.store
        upload = {} if known else {"actions": {"upload": {"href": f"{self.server.url}/store/{entry['oid']}"}}}
        return {"oid": entry["oid"], "size": entry["size"], **upload}

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _drop(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]) // 2)
        self.close_connection = True  # without an answer

    def _answer(self, content: dict, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Nothing on the screen of the tests."""


@contextmanager
def running_hub(folder: Path, **failures):
    """A Hub in a thread of its own."""
    hub = Hub(folder, **failures)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
