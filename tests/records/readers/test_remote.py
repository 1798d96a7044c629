"""Sources on the hub, on Azure and on Google Cloud are the rows and the identity of the same files in a folder."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gristmill.records import pins
from gristmill.records.readers.datasets import DataSpec, read_table
from gristmill.records.readers.sources import Source, SourceSpec, open_source
from gristmill.records.stores.opening import open_store
from tests import session
from tests.cloud_servers import Azurite, FakeGCS, environment
from tests.hub import hub

FILES = {
    "data/a.jsonl": "".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(3000)).encode(),
    "data/b.jsonl.gz": gzip.compress(b'{"text": "packed"}\n' * 10, mtime=0),
    "data/notes.pdf": b"no rows",
}
Put = Callable[[dict[str, bytes]], str]  # files -> their address


@pytest.fixture(params=["hub", "azure", "google"])
def put(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Put]:
    if request.param == "hub":
        with hub() as server:
            monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
            monkeypatch.setenv("HF_TOKEN", server.reader_token)

            def on_hub(files: dict[str, bytes]) -> str:
                server.add("org/texts", files, is_private=True)
                return "hf://datasets/org/texts"

            yield on_hub
        return
    google = session.cloud_server(FakeGCS) if request.param == "google" else None
    server_env = google or session.cloud_server(Azurite)
    environment(server_env, monkeypatch)

    def in_cloud(files: dict[str, bytes]) -> str:
        uri = f"{'gs' if google else 'az'}://mill/remote-{tmp_path.name}"
        for name, data in files.items():
            if google:
                google.add(f"remote-{tmp_path.name}/{name}", data)
            else:
                open_store(uri).put(name, data)
        return uri

    yield in_cloud


def rows(source: Source) -> list[tuple[str, str]]:
    return source.rows(0, source.num_rows)


@pytest.mark.parametrize("below", ["", "/data", "/data/*.jsonl*", "/data/a.jsonl"])
def test_a_source_is_the_same_wherever_it_is(below: str, put: Put, tmp_path: Path) -> None:
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    remote = open_source(SourceSpec(path=put(FILES) + below))
    local = open_source(SourceSpec(path=str(tmp_path) + below))
    assert remote.num_rows == local.num_rows >= 3000 and rows(remote) == rows(local)
    assert remote.digest() == local.digest() and remote.content() == local.content()


def test_data_for_fits_and_evaluations(put: Put) -> None:
    uri = put({name: FILES[name] for name in ("data/a.jsonl",)})
    for path in (uri, f"{uri}/data/a.jsonl"):
        assert read_table(DataSpec(path)).num_rows == 3000
    run = pins.Pins()
    with run.active():
        read_table(DataSpec(uri))
    put({"data/a.jsonl": b'{"text": "other"}\n'})
    if uri.startswith("hf://"):
        with run.active():
            assert read_table(DataSpec(uri)).num_rows == 3000  # of the commit of the start
    else:
        with run.active(), pytest.raises(Exception, match=r"a\.jsonl changed since this run began"):
            read_table(DataSpec(uri))
