"""report.html: one page that adds up, harms nobody, and that a browser shows."""

import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.jobs.report import plots, sample
from gristmill.jobs.report.command import page, write_report
from gristmill.jobs.report.history import MAX_SPANS, Bins, History
from gristmill.jobs.report.sample import read_sample, spread
from gristmill.jobs.report.tallies import benchmark_hits, clusters, rejects, yields
from gristmill.jobs.terminal.tables import money
from gristmill.records.output import ledger, manifest
from gristmill.records.output.events import read_events
from gristmill.records.output.manifest import Manifest
from gristmill.records.stores.opening import open_store
from tests.browser import browser, look, picture
from tests.conftest import gristmill
from tests.events import tell
from tests.recipes import STAGES, canned

EVIL = "<script>alert(1)</script>"
NUM_ASKS = 640


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run whose recipe, source, rows and benchmark try to write into the page."""
    folder = tmp_path_factory.mktemp("made")
    items = [{"text": t, "slug": f"{EVIL}{t}"} for t in ("rivers", "bridges")]
    text = f"{EVIL} write a function that counts the bells of a tower and returns how many of them are cracked or lost"
    (folder / "bench.jsonl").write_text(json.dumps({"id": EVIL, "text": text}) + "\n")
    bench = {"name": "<i>bells</i>", "path": str(folder / "bench.jsonl"), "id_column": "id"}
    stages = [{**s, "benchmarks": [bench]} if s["kind"] == "decontaminate" else s for s in STAGES]
    recipe = canned(
        folder,
        num_asks=NUM_ASKS,
        name=f"mill {EVIL}",
        description='"><img src=x onerror=alert(2)>',
        source={"items": items, "id_column": "slug"},
        generator={"contamination": str(folder / "bench.jsonl")},
        stages=stages,
    )
    done = gristmill("produce", recipe, "--out", str(folder / "out"))
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """The run without its own log: tests tell a story of theirs, or none."""
    return Path(shutil.copytree(made, tmp_path / "out", ignore=shutil.ignore_patterns("events")))


class Reader(HTMLParser):
    """Tags, the text of cells, and whether every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.ids: list[str] = []
        self.is_broken = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.is_broken = tag == "wbr"  # what follows belongs to the text before
        self.attributes += attrs
        self.ids += [v or "" for k, v in attrs if k == "id"]
        if tag not in ("meta", "link", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.is_broken:
            self.text[-1] += data
        elif self.open and self.open[-1] != "style":
            self.text.append(data)
        self.is_broken = False


def read(out: Path) -> tuple[str, Reader]:
    html = (out / "report.html").read_text()
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return html, reader


def book_of(out: Path) -> Manifest:
    book = manifest.load(open_store(str(out)))
    assert book is not None
    return book


def check_harmless(html: str, reader: Reader) -> None:
    assert not {"script", "img", "iframe", "object", "embed", "base", "form"} & set(reader.tags)
    assert not [k for k, _ in reader.attributes if k.startswith("on")]
    fetched = [
        v for k, v in reader.attributes if k in ("src", "href", "action") and v and not v.startswith(("#", "data:,"))
    ]
    assert fetched == [] and not re.search(r"@import|url\((?!#)", html)
    assert len(reader.ids) == len(set(reader.ids))
    html.encode("utf-8")


def test_the_page_tells_the_run_and_harms_nobody(out: Path) -> None:
    tell(out)
    done = gristmill("report", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out / "report.html")
    html, reader = read(out)
    check_harmless(html, reader)
    text = " ".join(" ".join(reader.text).split())
    totals = book_of(out).totals
    assert f"{totals.asks} rows generated = {totals.kept} kept + {totals.num_rejected} rejected" in text
    for reason, rows in totals.rejected.items():
        assert reason in reader.text and str(rows) in reader.text
    assert EVIL in reader.text  # as the benchmark's item: shown as it is written
    assert f"mill {EVIL}" in text and f"{EVIL}rivers" in text
    for heading in ("Throughput", "Lots", "Duplicates", "Benchmark contamination", "Engines", "What happened"):
        assert heading in reader.text
    assert reader.tags.count("svg") == 5  # throughput and lots for wide and narrow pages, lengths
    assert "the node was preempted" in text and "poison:engine_died" in text and "start 2" in text
    assert "lots, evenly spread" not in text
    assert book_of(out).fingerprint in text


def test_yields_and_rejects_add_up(out: Path) -> None:
    store, book = open_store(str(out)), book_of(out)
    book.totals.rejected["generator:malformed_ask"] = 5
    book.totals.asks += 5
    steps = yields(book, book.totals)
    assert [s.name for s in steps] == ["generator", "finish", "rules", "language", "decontaminate", "dedup"]
    assert steps[0].entering == book.totals.asks and steps[0].rejected == 5
    assert all(a.leaving == b.entering for a, b in pairwise(steps))
    assert steps[-1].leaving == book.totals.kept
    found = read_sample(store, book.totals.num_lots, NUM_ASKS, book.recipe["stages"])
    assert len(found.lengths) == book.totals.kept and found.lengths.sum() == book.totals.kept_tokens
    assert sum(found.rejected_tokens.values()) == book.totals.tokens_out - book.totals.kept_tokens
    num_duplicates = book.totals.rejected["dedup:duplicate"]
    assert sum(row.num_rows for row in clusters(found.duplicates)) == num_duplicates
    assert sum(row.num_clusters for row in clusters(found.duplicates)) == len(found.duplicates)
    (met,) = benchmark_hits(found)
    assert met.name == "<i>bells</i>" and met.num_rejected == book.totals.rejected["decontaminate:overlap"]
    assert met.top[0][0] == EVIL and met.max_share == 1.0


def test_cost_is_shared_out_by_tokens(out: Path) -> None:
    book = book_of(out)
    wasted = book.totals.tokens_out - book.totals.kept_tokens
    cluster = book.recipe["cluster"]
    book.starts = [{**book.starts[-1], "device_s": 3600.0, "cost": 2.0}]
    book.recipe = {**book.recipe, "cluster": {**cluster, "price_per_device_hour": 2.0, "currency": "EUR"}}
    html = page(open_store(str(out)), book)
    assert "EUR, at 2 a device hour" in html and "EUR, kept tokens" in html
    assert f"{money(2.0 * wasted / book.totals.tokens_out)}</td>" in html
    book.starts = [{**book.starts[-1], "cost": 0.0}]
    book.recipe = {**book.recipe, "cluster": cluster}
    assert "device hour" not in page(open_store(str(out)), book)


def test_money_is_written_out() -> None:
    assert [money(n) for n in (0.0, 12345.678, 1.0, 0.5, 0.0152, 5.16e-05)] == [
        *("0.00", "12,345.68", "1.00", "0.500", "0.0152", "0.0000516")
    ]
    assert money(None) == ""


def test_tokens_of_rejected_rows_come_from_the_totals_or_from_a_sample(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, book = open_store(str(out)), book_of(out)
    whole = read_sample(store, book.totals.num_lots, NUM_ASKS)
    exact, is_estimated = rejects(book.totals, whole, None)
    assert not is_estimated and {r.reason: r.tokens for r in exact} == dict(whole.rejected_tokens)
    monkeypatch.setattr(sample, "MAX_LOTS", 5)
    part = read_sample(store, book.totals.num_lots, NUM_ASKS)
    assert part.num_lots == 5 and not part.is_whole
    bare = ledger.totals(store, book, ledger.committed(store, book))
    bare.rejected_tokens = {}  # type: ignore[attr-defined]
    some, is_estimated = rejects(bare, part, None)
    assert is_estimated
    guessed = sum(r.tokens or 0 for r in some)
    assert 0.5 < guessed / sum(r.tokens or 0 for r in exact) < 2
    bare.rejected_tokens = {r: 7 for r in bare.rejected}  # type: ignore[attr-defined]
    told, is_estimated = rejects(bare, part, None)
    assert not is_estimated and {r.tokens for r in told} == {7}
    write_report(store)
    assert f"5 of {book.totals.num_lots} lots, evenly spread" in (out / "report.html").read_text()


def test_an_older_output_without_events(out: Path) -> None:
    write_report(open_store(str(out)))
    html, reader = read(out)
    check_harmless(html, reader)
    assert "no events of committed lots" in html and reader.tags.count("svg") == 1


def test_a_run_before_its_first_lot(out: Path) -> None:
    shutil.rmtree(out / "kept")
    shutil.rmtree(out / "rejected")
    table = json.loads((out / "manifest.json").read_text())
    table |= {"state": "running", "starts": [], "totals": {}}
    (out / "manifest.json").write_text(json.dumps(table))
    write_report(open_store(str(out)))
    html, reader = read(out)
    check_harmless(html, reader)
    assert "No lot has been committed yet" in html and ">stopped<" in html


def test_a_run_without_dedup_and_benchmarks_and_with_a_torn_shard(tmp_path: Path) -> None:
    recipe = canned(tmp_path, num_asks=96, stages=STAGES[:1])
    assert gristmill("produce", recipe, "--out", str(tmp_path / "out")).returncode == 0
    out = tmp_path / "out"
    write_report(open_store(str(out)))
    html, reader = read(out)
    assert "Duplicates" not in reader.text and "Benchmark contamination" not in reader.text
    assert "could not be read" not in html
    torn = next((out / "rejected").iterdir())
    torn.write_bytes(torn.read_bytes()[:-100])
    write_report(open_store(str(out)))
    assert "Shards that could not be read: 1" in (out / "report.html").read_text()


def test_a_report_on_s3_and_of_nothing(tmp_path: Path, out: Path, s3: str) -> None:
    tell(out)
    target = open_store(f"{s3}/report")
    for entry in open_store(str(out)).list():
        target.put(entry.name, open_store(str(out)).read(entry.name))
    done = gristmill("report", f"{s3}/report")
    assert done.returncode == 0 and done.stdout.strip() == f"{s3}/report/report.html"
    assert b"Throughput</h2>" in target.read("report.html")
    nothing = gristmill("report", str(tmp_path))
    assert nothing.returncode == 2 and "no manifest.json there" in nothing.stderr


def test_figures_are_the_same_again(out: Path) -> None:
    tell(out)
    first, second = (History(read_events(open_store(str(out)))) for _ in range(2))
    for figure in (plots.throughput, plots.lots, plots.phases):
        assert figure(first) == figure(second)


def commits(num_lots: int, lot_s: float) -> list[dict[str, Any]]:
    """Events of a long run, without the files."""
    events: list[dict[str, Any]] = [{"t": "2026-01-01T00:00:00+00:00", "start": 1, "event": "start"}]
    for lot in range(num_lots):
        born = lot * lot_s
        times = {"born_s": born, "made_s": born + 8, "processed_s": born + 9, "claimed_s": born + 12}
        times |= {"finished_s": born + 12.5, "committed_s": born + 13}
        time = "2026-01-01T00:00:00.5+00:00"
        values = {"asks": 256, "kept": 200, "rejected": {"rules:x": 56}, "tokens_out": 1000}
        events.append({"t": time, "start": 1, "event": "commit", "lot": lot, **times, **values})
    return events


def test_a_long_run_takes_bounded_memory_and_page() -> None:
    small, large = History(commits(3_000, 1.0)), History(commits(60_000, 1.0))
    assert not large.shows_every_lot and len(large.spans) == MAX_SPANS + 1
    assert large.commits.sums["rows"].sum() == 60_000 * 256 and large.commits.sums["lots"].sum() == 60_000
    assert len(plots.throughput(large)) < 1.5 * len(plots.throughput(small)) < 300_000
    assert len(plots.lots(large)) < 300_000
    _, sums = large.commits.coarse(100, large.end_s)
    means = {phase: sums[phase].sum() / 60_000 for phase in ("making", "processing", "waiting", "committing")}
    assert means == {"making": 8.0, "processing": 1.0, "waiting": 3.0, "committing": 1.0}


def test_events_that_lack_what_they_should_say_are_left_out() -> None:
    events = [*commits(3, 1.0), {"t": "2026-01-01T00:01:00+00:00", "start": 1, "event": "commit", "lot": "x"}]
    events.append({"t": "2026-01-01T00:02:00+00:00", "start": 1, "event": "engine"})
    events.append({"t": "2026-01-01T00:03:00+00:00", "start": 1, "event": "news", "a": 1})
    history = History(events)
    assert history.counts["commit"] == 3 and history.num_unclear == 2 and history.counts["news"] == 1


def test_a_start_without_its_first_events_still_follows_the_one_before() -> None:
    later = [{**e, "start": 2} for e in commits(2, 1.0)[1:]]
    history = History([*commits(2, 1.0), *later])
    assert [s.number for s in history.starts] == [1, 2]
    assert history.starts[1].zero_s == 14.0 and history.end_s == 28.0


def test_what_comes_before_the_start_event_belongs_to_its_start() -> None:
    first, second = commits(2, 1.0), [{**e, "start": 1} for e in commits(2, 1.0)]
    said = {"t": "2025-12-31T23:59:50+00:00", "start": 1, "event": "log", "text": "waiting"}
    history = History([said, *first, *second])
    assert [s.number for s in history.starts] == [1, 1]  # the second driver was left the number of the first
    assert [s.zero_s for s in history.starts] == [10.0, 24.0]
    assert [span.edges_s[0] for span in history.spans] == [10.0, 11.0, 24.0, 25.0]


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 100)), min_size=1, max_size=60),
    st.integers(1, 64),
    st.floats(0, 2e6),
)
def test_bins_lose_nothing(points: list[tuple[float, int]], num: int, end_s: float) -> None:
    bins = Bins("n", num=16)
    for at_s, value in points:
        bins.add(at_s, n=value)
    total = sum(value for _, value in points)
    assert bins.sums["n"].sum() == total
    edges, sums = bins.coarse(num, max(end_s, max(at_s for at_s, _ in points)))
    assert sums["n"].sum() == total and len(sums["n"]) == len(edges) - 1 <= max(num, 1)
    assert (np.diff(edges) > 0).all()


@given(st.integers(1, 5000), st.integers(1, 300))
def test_lots_of_a_sample_are_spread(num_lots: int, num_wanted: int) -> None:
    lots = spread(num_lots, num_wanted)
    assert len(lots) == len(set(lots)) == min(num_lots, num_wanted) and lots == sorted(lots)
    assert lots[0] == 0 and (num_wanted == 1 or lots[-1] == num_lots - 1)


@pytest.mark.skipif(browser() is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_a_browser_shows_it_at_every_width(out: Path, tmp_path: Path) -> None:
    tell(out)
    write_report(open_store(str(out)))
    html = out / "report.html"
    for width in (360, 400, 700, 1280):
        seen = look(html, width)
        assert seen["width"] <= width, f"{seen['width']} px wide on a page of {width}"
        assert seen["svgs"] == 3 and seen["hidden"] == 2  # one of each pair, and lengths
        assert seen["scripts"] == 0 and seen["fetched"] == []
        assert seen["heading"].startswith(f"mill {EVIL}")
        assert seen["headings"][:4] == ["Yield by stage", "Rejected rows by reason", "Throughput", "Lots"]
        assert EVIL in seen["texts"] or any(t.startswith(EVIL) for t in seen["texts"])
    picture(html, tmp_path / "page.png", 1280, 900)
    assert (tmp_path / "page.png").stat().st_size > 20_000
