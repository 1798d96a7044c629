"""A proxy with the Batch API: files in memory, batches that end when the test says so."""

import json
from typing import Any

from aiohttp import web

from tests.engines.endpoint.proxy import MODEL, Proxy, completion


class BatchProxy(Proxy):
    """`release()` ends the batches in work. `refused`: numbers of requests in a batch that fail with HTTP 500."""

    def __init__(self, *, is_automatic: bool = True, refused: tuple[int, ...] = (), **keys: Any) -> None:
        super().__init__(**keys)
        self.is_automatic, self.refused = is_automatic, refused
        self.files: dict[str, bytes] = {}
        self.prompts: dict[str, str] = {}  # by request id, for subclasses
        self.batches: dict[str, dict[str, Any]] = {}
        self.custom_ids: list[str] = []  # of all requests in all batches

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/files", self._upload)
        app.router.add_get("/v1/files/{id}/content", self._content)
        app.router.add_post("/v1/batches", self._create)
        app.router.add_get("/v1/batches", self._list)
        app.router.add_get("/v1/batches/{id}", self._retrieve)

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        field: Any = form["file"]
        name = self._store(field.file.read())
        return web.json_response(
            {
                "id": name,
                "object": "file",
                "bytes": 1,
                "created_at": 0,
                "filename": "x",
                "purpose": "batch",
                "status": "processed",
            }
        )

    def _store(self, content: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    async def _content(self, request: web.Request) -> web.Response:
        if (content := self.files.get(request.match_info["id"])) is None:
            return web.json_response({"error": {"message": "No such File object", "param": "id"}}, status=404)
        return web.Response(body=content, content_type="application/octet-stream")

    async def _create(self, request: web.Request) -> web.Response:
        order = await request.json()
        lines = [json.loads(line) for line in self.files[order["input_file_id"]].splitlines()]
        self.custom_ids += [line["custom_id"] for line in lines]
        name = f"batch-{len(self.batches)}"
        self.batches[name] = {
            "id": name,
            "object": "batch",
            "created_at": 0,
            "status": "in_progress",
            "completion_window": "24h",
            "endpoint": order["endpoint"],
            "input_file_id": order["input_file_id"],
            "metadata": order["metadata"],
        }
        if self.is_automatic:
            self._finish(name)
        return web.json_response(self.batches[name])

    def _finish(self, name: str) -> None:
        batch = self.batches[name]
        answers: dict[str, list[str]] = {"output_file_id": [], "error_file_id": []}
        for number, text in enumerate(self.files[batch["input_file_id"]].splitlines()):
            line = json.loads(text)
            assert line["body"]["model"] == MODEL
            is_refused = name == "batch-0" and number in self.refused
            status, body = (
                (500, {"error": {"message": "internal"}}) if is_refused else (200, completion(number, line["body"]))
            )
            answer = {"custom_id": line["custom_id"], "response": {"status_code": status, "body": body}, "error": None}
            answers["error_file_id" if is_refused else "output_file_id"].append(json.dumps(answer))
        batch["status"] = "completed"
        batch |= {key: self._store("\n".join(lines).encode()) for key, lines in answers.items() if lines}

    def release(self) -> None:
        """End the batches in work; call it from any thread."""
        for name, batch in list(self.batches.items()):
            if batch["status"] == "in_progress":
                self._finish(name)

    async def _list(self, request: web.Request) -> web.Response:
        data = list(reversed(self.batches.values()))
        return web.json_response({"object": "list", "data": data, "has_more": False})

    async def _retrieve(self, request: web.Request) -> web.Response:
        return web.json_response(self.batches[request.match_info["id"]])
