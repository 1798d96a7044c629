"""A small hub of data sets on loopback: the part of the Hugging Face API that its client uses, with faults on demand.

with hub() as server:                       # HF_ENDPOINT=server.endpoint
    server.add("org/name", {"a.jsonl": b"..."})
    server.faults.append(Fault("GET", "/resolve/", 429, retry_after_s=0))
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

LFS_ENDINGS = (".parquet", ".zst", ".gz")
Files = dict[str, "Blob"]


@dataclass(frozen=True)
class Blob:
    """A file of a commit. Git keeps the file itself, or a pointer to an object of LFS."""

    oid: str  # of git: SHA-1
    size: int
    lfs: str = ""  # SHA-256 of the object


@dataclass
class Repo:
    is_private: bool = False
    is_gated: bool = False
    commits: dict[str, Files] = field(default_factory=lambda: {"0" * 40: {}})
    branches: dict[str, str] = field(default_factory=lambda: {"main": "0" * 40})
    log: list[tuple[str, int]] = field(default_factory=list)  # (branch, number of operations) of each commit

    def commit(self, branch: str, files: Files) -> str:
        sha = hashlib.sha1(f"{branch} {len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[sha] = self.commits[self.branches[branch]] | files
        self.branches[branch] = sha
        return sha


@dataclass
class Fault:
    """What the next requests of this kind get. `status` 0: half of the answer, then the connection ends."""

    method: str
    path: str  # a part of it
    status: int
    times: int = 1
    retry_after_s: int | None = None
    is_after: bool = False  # the request is carried out, and only its answer is this one


class Hub:
    """The state of the server. `token`: the one that may read private repositories and write."""

    def __init__(self) -> None:
        self.endpoint, self.cdn = "", ""  # two origins, as on the hub
        self.token, self.reader_token = "hf_tests", "hf_reader"
        self.repos: dict[str, Repo] = {}
        self.contents: dict[str, bytes] = {}  # by SHA-1 of git or by SHA-256
        self.parts: dict[str, dict[int, bytes]] = {}
        self.faults: list[Fault] = []
        self.requests: Counter[str] = Counter()  # "METHOD kind"
        self.sent: list[str] = []  # objects of LFS that were uploaded
        self.num_bytes = 0  # of files that were read
        self.page, self.part_bytes = 1000, 0  # entries of a page of a tree; above 0: uploads in parts of this size
        self.ignores_ranges = False  # as a proxy may
        self.is_full = False  # no object is taken
        self.on_commit: Any = None  # called with (hub, repository, branch) before a commit
        self.lock = threading.RLock()

    def add(self, name: str, files: dict[str, bytes], branch: str = "main", **settings: Any) -> str:
        """Commit files to a repository, which is made if need be; returns the commit."""
        repo = self.repos.setdefault(name, Repo())
        for key, value in settings.items():
            setattr(repo, key, value)
        return repo.commit(branch, {path: self.blob(path, data) for path, data in files.items()})

    def blob(self, path: str, data: bytes) -> Blob:
        if not path.endswith(LFS_ENDINGS):
            oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            self.contents[oid] = data
            return Blob(oid, len(data))
        lfs = hashlib.sha256(data).hexdigest()
        self.contents[lfs] = data
        return Blob(hashlib.sha1(lfs.encode()).hexdigest(), len(data), lfs)

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        """The contents of the files of a branch."""
        repo = self.repos[name]
        files = repo.commits[repo.branches[branch]]
        return {path: self.contents[blob.lfs or blob.oid] for path, blob in sorted(files.items())}

    def fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.method == method and fault.path in path:
                    fault.times -= 1
                    if not fault.times:
                        self.faults.remove(fault)
                    return fault
        return None


class Answer(Exception):
    """Ends a request."""

    def __init__(self, status: int, body: Any = b"", **headers: str) -> None:
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()


def failure(status: int, message: str, code: str = "") -> Answer:
    headers = {"X_Error_Message": message, **({"X_Error_Code": code} if code else {})}
    return Answer(status, {"error": message}, **headers)


ROUTES: list[tuple[str, re.Pattern[str], str]] = [
    ("GET", re.compile(r"/api/whoami-v2"), "whoami"),
    ("POST", re.compile(r"/api/validate-yaml"), "validate"),
    ("POST", re.compile(r"/api/repos/create"), "create"),
    ("GET", re.compile(r"/api/datasets/([^/]+/[^/]+)"), "info"),
    ("GET", re.compile(r"/api/datasets/([^/]+/[^/]+)/revision/([^/]+)"), "info"),
    ("GET", re.compile(r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?"), "tree"),
    ("POST", re.compile(r"/api/datasets/([^/]+/[^/]+)/paths-info/([^/]+)"), "paths"),
    ("POST", re.compile(r"/api/datasets/([^/]+/[^/]+)/preupload/([^/]+)"), "preupload"),
    ("POST", re.compile(r"/api/datasets/([^/]+/[^/]+)/commit/([^/]+)"), "commit"),
    ("POST", re.compile(r"/api/datasets/([^/]+/[^/]+)/branch/([^/]+)"), "branch"),
    ("DELETE", re.compile(r"/api/datasets/([^/]+/[^/]+)/branch/([^/]+)"), "unbranch"),
    ("PUT", re.compile(r"/api/datasets/([^/]+/[^/]+)/settings"), "settings"),
    ("POST", re.compile(r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch"), "batch"),
    ("PUT", re.compile(r"/lfs/([0-9a-f]{64})(?:/(\d+))?"), "upload"),
    ("POST", re.compile(r"/lfs/([0-9a-f]{64})"), "complete"),
    *((verb, re.compile(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.*)"), "resolve") for verb in ("GET", "HEAD")),
    *((verb, re.compile(r"/cdn/([0-9a-f]+)"), "cdn") for verb in ("GET", "HEAD")),
]
WRITES = {"create", "preupload", "commit", "branch", "unbranch", "settings", "batch"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else self._chunks()
        url = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(url.query).items()}
        fault = self.hub.fault(self.command, url.path)
        try:
            if fault and fault.status and not fault.is_after:
                raise self._of(fault)
            self._route(url.path)
            raise failure(404, "no such route")
        except Answer as answer:
            self._send(self._of(fault) if fault and fault.status else answer, is_cut=bool(fault and not fault.status))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def _of(self, fault: Fault) -> Answer:
        answer = failure(fault.status, "as the test demands")
        if fault.status == 200:
            answer.body = b"<html>Please sign in</html>"
        if fault.retry_after_s is not None:
            answer.headers["Retry-After"] = str(fault.retry_after_s)
        return answer

    def _chunks(self) -> bytes:
        data = b""
        while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
            data += self.rfile.read(size)
            self.rfile.readline()
        if data:
            self.rfile.readline()
        return data

    def _send(self, answer: Answer, is_cut: bool) -> None:
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: len(answer.body) // 2] if is_cut else answer.body)
        if is_cut:
            self.close_connection = True

    def _route(self, path: str) -> None:
        for method, pattern, kind in ROUTES:
            match = pattern.fullmatch(path)
            if method == self.command and match:
                names = [None if part is None else unquote(part) for part in match.groups()]
                with self.hub.lock:
                    self.hub.requests[f"{method} {kind}"] += 1
                    if kind in WRITES and not self._may("write"):
                        raise failure(403 if self._token else 401, "You don't have the rights to write here")
                    getattr(self, f"_{kind}")(*names)

    @property
    def _token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _may(self, right: str) -> bool:
        return self._token in ((self.hub.token,) if right == "write" else (self.hub.token, self.hub.reader_token))

    def _repo(self, name: str) -> Repo:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.is_private and not self._may("read")):
            raise failure(404 if self._token else 401, "Repository not found", "RepoNotFound")
        return repo

    def _commit_of(self, name: str, revision: str) -> str:
        repo = self._repo(name)
        sha = repo.branches.get(revision, revision)
        if sha not in repo.commits:
            raise failure(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha

    def _whoami(self) -> None:
        raise Answer(200, {"name": "tester", "type": "user"}) if self._may("read") else failure(401, "Invalid token")

    def _validate(self) -> None:
        raise Answer(200, {"errors": [], "warnings": []})

    def _create(self) -> None:
        request = json.loads(self.body)
        name = f"{request.get('organization') or 'tester'}/{request['name']}"
        if name in self.hub.repos:
            raise failure(409, "You already created this dataset repo")
        self.hub.repos[name] = Repo(is_private=request.get("visibility") == "private")
        self.hub.add(name, {".gitattributes": b"*.parquet filter=lfs\n"})
        raise Answer(200, {"url": f"{self.hub.endpoint}/datasets/{name}", "name": name})

    def _info(self, name: str, revision: str = "main") -> None:
        repo, sha = self._repo(name), self._commit_of(name, revision)
        siblings = [{"rfilename": path} for path in sorted(repo.commits[sha])]
        gated = "auto" if repo.is_gated else False
        raise Answer(200, {"id": name, "sha": sha, "private": repo.is_private, "gated": gated, "siblings": siblings})

    def _entries(self, name: str, revision: str) -> list[dict[str, Any]]:
        entries = []
        for path, blob in self._repo(name).commits[self._commit_of(name, revision)].items():
            entry = {"type": "file", "path": path, "size": blob.size, "oid": blob.oid}
            lfs = {"oid": blob.lfs, "size": blob.size, "pointerSize": 130}
            entries.append({**entry, "lfs": lfs} if blob.lfs else entry)
        return entries

    def _tree(self, name: str, revision: str, folder: str | None) -> None:
        prefix = f"{folder}/" if folder else ""
        entries = [e for e in self._entries(name, revision) if e["path"].startswith(prefix)]
        if folder and not entries:
            raise failure(404, f"{folder} does not exist", "EntryNotFound")
        folders = {prefix + e["path"][len(prefix) :].split("/")[0] for e in entries if "/" in e["path"][len(prefix) :]}
        if self.query.get("recursive", "").lower() != "true":
            entries = [e for e in entries if "/" not in e["path"][len(prefix) :]]
        entries += [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
        at = int(self.query.get("cursor", 0))
        headers = {}
        if at + self.hub.page < len(entries):
            query = f"recursive={self.query.get('recursive', 'false')}&cursor={at + self.hub.page}"
            headers["Link"] = f'<{self.hub.endpoint}{urlsplit(self.path).path}?{query}>; rel="next"'
        raise Answer(200, entries[at : at + self.hub.page], **headers)

    def _paths(self, name: str, revision: str) -> None:
        is_json = "json" in (self.headers.get("Content-Type") or "")
        paths = json.loads(self.body)["paths"] if is_json else parse_qs(self.body.decode())["paths"]
        raise Answer(200, [e for e in self._entries(name, revision) if e["path"] in paths])

    def _preupload(self, name: str, revision: str) -> None:
        files = self._repo(name).commits[self._commit_of(name, revision)]
        modes = []
        for file in json.loads(self.body)["files"]:
            blob = files.get(file["path"])
            mode = "lfs" if file["path"].endswith(LFS_ENDINGS) else "regular"
            oid = (blob.lfs or blob.oid) if blob else None
            modes.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        raise Answer(200, {"files": modes})

    def _batch(self, name: str) -> None:
        objects = []
        for item in json.loads(self.body)["objects"]:
            if self.hub.is_full:
                objects.append({**item, "error": {"code": 403, "message": "Private repository storage limit reached"}})
                continue
            if item["oid"] in self.hub.contents:
                objects.append(item)
                continue
            href, part_bytes = f"{self.hub.endpoint}/lfs/{item['oid']}", self.hub.part_bytes
            upload: dict[str, Any] = {"href": href}
            if part_bytes:
                numbers = range(1, -(-item["size"] // part_bytes) + 1)
                upload["header"] = {"chunk_size": str(part_bytes), **{str(n): f"{href}/{n}" for n in numbers}}
            objects.append({**item, "actions": {"upload": upload}})
        raise Answer(200, {"transfer": "multipart" if self.hub.part_bytes else "basic", "objects": objects})

    def _upload(self, oid: str, part: str | None) -> None:
        if part is None:
            self._keep(oid, self.body)
        else:
            self.hub.parts.setdefault(oid, {})[int(part)] = self.body
        raise Answer(200, ETag=f'"{hashlib.md5(self.body).hexdigest()}"')

    def _complete(self, oid: str) -> None:
        parts = self.hub.parts.pop(oid)
        self._keep(oid, b"".join(parts[part["partNumber"]] for part in json.loads(self.body)["parts"]))
        raise Answer(200, {})

    def _keep(self, oid: str, data: bytes) -> None:
        if hashlib.sha256(data).hexdigest() != oid:
            raise failure(400, "the object has another digest")
        self.hub.contents[oid] = data
        self.hub.sent.append(oid)

    def _commit(self, name: str, branch: str) -> None:
        repo = self._repo(name)
        if self.hub.on_commit:
            self.hub.on_commit(self.hub, name, branch)
        head, *operations = [json.loads(line) for line in self.body.splitlines()]
        if branch not in repo.branches:
            raise failure(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        if head["value"].get("parentCommit", repo.branches[branch]) != repo.branches[branch]:
            raise failure(412, "A commit has happened since. Please refresh and try again.")
        files: Files = {}
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                data = base64.b64decode(value["content"])
                oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                self.hub.contents[oid], files[value["path"]] = data, Blob(oid, len(data))
            elif value["oid"] not in self.hub.contents:
                raise failure(400, f"{value['path']}: no such LFS object")
            else:
                files[value["path"]] = self.hub.blob(value["path"], self.hub.contents[value["oid"]])
        sha = repo.commit(branch, files)
        repo.log.append((branch, len(operations)))
        raise Answer(200, {"commitUrl": f"{self.hub.endpoint}/datasets/{name}/commit/{sha}", "commitOid": sha})

    def _branch(self, name: str, branch: str) -> None:
        repo = self._repo(name)
        if branch in repo.branches:
            raise failure(409, f"Reference already exists: {branch}")
        start = json.loads(self.body or b"{}").get("startingPoint", "main")
        repo.branches[branch] = self._commit_of(name, start)
        raise Answer(200, {})

    def _unbranch(self, name: str, branch: str) -> None:
        if self._repo(name).branches.pop(branch, None) is None:
            raise failure(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        raise Answer(200, {})

    def _settings(self, name: str) -> None:
        self._repo(name).is_private = json.loads(self.body)["visibility"] == "private"
        raise Answer(200, {})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repo, sha = self._repo(name), self._commit_of(name, revision)
        if repo.is_gated and not self._may("read"):
            raise failure(403 if self._token else 401, "Access to this dataset is restricted", "GatedRepo")
        blob = repo.commits[sha].get(path)
        if blob is None:
            raise failure(404, "Entry not found", "EntryNotFound")
        headers = {"X_Repo_Commit": sha, "ETag": f'"{blob.oid}"'}
        if not blob.lfs:
            self._range(self.hub.contents[blob.oid], headers)
        headers |= {"X_Linked_Etag": f'"{blob.lfs}"', "X_Linked_Size": str(blob.size)}
        signature = f"Expires={time.time() + 3600:.0f}&Signature={quote(blob.lfs[:8])}"
        raise Answer(302, b"", Location=f"{self.hub.cdn}/cdn/{blob.lfs}?{signature}", **headers)

    def _cdn(self, oid: str) -> None:
        if self._token:
            raise failure(400, "a token has left the hub")
        self._range(self.hub.contents[oid], {"ETag": f'"{oid}"'})

    def _range(self, data: bytes, headers: dict[str, str]) -> None:
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        start, stop, status = 0, len(data), 200
        if match and not self.hub.ignores_ranges:
            first, last = match.groups()
            start = int(first) if first else max(0, len(data) - int(last))
            stop = min(len(data), int(last) + 1) if first and last else len(data)
            if start >= len(data):
                raise Answer(416, b"", Content_Range=f"bytes */{len(data)}")
            headers, status = {**headers, "Content_Range": f"bytes {start}-{stop - 1}/{len(data)}"}, 206
        if self.command == "GET":
            self.hub.num_bytes += stop - start
        raise Answer(status, data[start:stop], Accept_Ranges="bytes", **headers)


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub on a port of loopback."""
    state = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": state}))
    server.daemon_threads = True
    state.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    state.cdn = state.endpoint.replace("127.0.0.1", "localhost")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
