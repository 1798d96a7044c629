"""Runs of several widths, one after another, until all kills are done; each is judged at its end."""

import argparse
import hashlib
import math
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gristmill.records.stores.opening import open_store
from tests.chaos import paid
from tests.chaos.driver import Driver, WrongData, WrongEnd, elsewhere
from tests.chaos.neighbour import Neighbour
from tests.chaos.nodes import Nodes, leftovers
from tests.chaos.plan import S3_KINDS, SHAPES, Kill, Shape, is_local, kills, num_runs
from tests.chaos.report import Cost, costs
from tests.chaos.run import NoProgress, Run
from tests.chaos.source import SourceFile
from tests.chaos.verdict import Verdict, judge
from tests.chaos.watch import Watch, bucket_look, folder_look
from tests.conftest import gristmill
from tests.recipes import canned, teacher
from tests.s3server import S3Server

LOT_SIZE = 32
SECONDS_PER_LOT = 1.0  # of all replicas together: a run of 60 lots takes about a minute undisturbed
TEACHER_LOT_SIZE = 8
TEACHER_SHAPE = Shape(replicas=1, nodes=1, index_actors=1, window=4)
TEACHER_PATIENCE_S = 900.0
LEFTOVER_PATIENCE_S = 60.0
STARTS = 3  # of the undisturbed run: on a busy machine a local Ray may not come up in time
MAX_RETRIES = 100  # kills are many here, and one lot may meet several


class Failed(Exception):
    """A run was not right; says what and where."""


class Campaign:
    """Owns the S3 server and the cluster. `costs` has a line for every kill of the runs that were judged."""

    def __init__(self, args: argparse.Namespace, keep: Path, ray_folder: Path, say: Callable[[str], None]) -> None:
        self.args, self.keep, self.say = args, keep, say
        self.costs: list[Cost] = []
        self.num_runs = 0
        self.nodes = Nodes(ray_folder, args.reconnect_s)
        self.server: S3Server | None = None
        self.source = SourceFile(keep)
        self.endpoint = paid.CountedProxy() if args.endpoint else None

    def play(self) -> None:
        """Raises Failed."""
        args = self.args
        due = deque(kills(args.kills, args.seed, args.kinds, args.lots))
        if "pause" in args.kinds:
            elsewhere()
        if self.endpoint:
            self.endpoint.__enter__()
        (self.keep / "s3").mkdir(exist_ok=True)
        self.server = S3Server(self.keep / "s3")
        os.environ.update(self.server.env)  # for the workers of the nodes, too
        with ThreadPoolExecutor(2) as pool:  # they wait for processes more than they compute
            nodes = pool.submit(self.nodes.start, self._shape(1).nodes)
            undisturbed = pool.submit(self._undisturbed)
            self.server.start()
        nodes.result()
        planned = num_runs(args.kills)
        while due:
            if self.num_runs > 2 * planned + 1:
                raise Failed(f"{len(due)} kills found no moment in {self.num_runs} runs; use more --lots")
            self.num_runs += 1
            share = math.ceil(len(due) / max(1, planned - self.num_runs + 1))
            self._run(due, share, undisturbed.result())

    def _recipe(self) -> str:
        """The recipe of all runs; its source is a file."""
        path = {"path": str(self.source.path), "cycle": True}
        if self.args.teacher:
            return teacher(self.keep, self.args.lots * TEACHER_LOT_SIZE, TEACHER_LOT_SIZE, source=path)
        if self.endpoint:
            return paid.recipe(self.keep, self.endpoint, self.args.lots * LOT_SIZE, LOT_SIZE, path)
        items, pooled = {**path, "items": None}, {"pooled": True}
        return canned(self.keep, self.args.lots * LOT_SIZE, LOT_SIZE, source=items, generator=pooled)

    def _shape(self, number: int) -> Shape:
        return TEACHER_SHAPE if self.args.teacher else SHAPES[(number - 1) % len(SHAPES)]

    def _kills(self, due: deque[Kill], share: int, local: bool) -> deque[Kill]:
        """The next kills, out of `due`, that a run can have: without an S3 server, none of its outages."""
        mine = [kill for kill in due if not (local and kill.kind in S3_KINDS)][:share]
        for kill in mine:
            due.remove(kill)
        return deque(mine)

    def _undisturbed(self) -> str:
        """The output of the same recipe on a local Ray and a local folder, where nothing happens."""
        out = str(self.keep / "undisturbed")
        self.say(f"undisturbed run into {out}")
        for _ in range(STARTS):
            done = gristmill("produce", self._recipe(), "--out", out, timeout=3600, own_process=True)
            if done.returncode == 0:
                break
        if done.returncode != 0:
            raise Failed(f"the undisturbed run: exit {done.returncode}: {done.stderr[-2000:]}")
        return out

    def _run(self, due: deque[Kill], share: int, undisturbed: str) -> None:
        args, number = self.args, self.num_runs
        shape = self._shape(number)
        folder = self.keep / f"run-{number}"
        folder.mkdir(exist_ok=True)
        local = is_local(number) and any(kill.kind not in S3_KINDS for kill in due)
        out = str(folder / "out") if local else f"s3://mill/run-{number}"
        self.say(f"run {number}: {shape}, {'a folder' if local else 'S3'}")
        num_nodes = shape.nodes * (2 if args.beside else 1)
        if self.nodes.head and len(self.nodes.workers) != num_nodes:
            self.nodes.stop()
        if not self.nodes.head:
            self.nodes.start(num_nodes)
        arguments = self._command(shape)
        neighbour = Neighbour(arguments, folder / "beside", self.nodes) if args.beside else None
        assert self.server
        mine = self._kills(due, share, local)
        if self.endpoint:
            self.endpoint.pace(LOT_SIZE / SECONDS_PER_LOT, shape.replicas)
        num_calls = self.endpoint.num_calls if self.endpoint else 0
        driver = Driver([*arguments, "--out", out], folder)
        look = folder_look(Path(out)) if local else bucket_look(self.server, f"run-{number}")
        with Watch(look) as watch:
            run = Run(number, args.lots, driver, self.nodes, self.server, self.source, watch, out, shape, self.say)
            run.patience_s = TEACHER_PATIENCE_S if args.teacher else run.patience_s
            try:
                if neighbour:
                    neighbour.start()
                run.play(mine)
                if neighbour:
                    neighbour.wait()
            except (NoProgress, WrongData, WrongEnd, RuntimeError) as error:
                raise Failed(f"run {number}: {type(error).__name__}: {error}; see {folder}") from error
            finally:
                driver.end()
                if neighbour:
                    neighbour.end()
        due.extendleft(reversed(mine))  # what found no moment
        left = leftovers(self.nodes, LEFTOVER_PATIENCE_S)
        verdict = judge(out, undisturbed)
        if neighbour:
            beside = judge(neighbour.out, undisturbed)
            verdict.wrong += [f"the run beside: {what}" for what in beside.wrong]
            self._tell(number, beside, 0, len(neighbour.driver.starts), " (the run beside)")
        verdict.wrong += watch.wrong + [f"left behind on the cluster: {what}" for what in left]
        if self.endpoint:
            needed = args.lots * LOT_SIZE
            verdict.wrong += self.endpoint.wrong(num_calls, needed, run.struck, shape)
            self.say(f"run {number}: {self.endpoint.num_calls - num_calls} calls, {needed} needed")
        self.costs += costs(run.struck, watch.commits, driver.starts, shape.window, verdict)
        self._tell(number, verdict, len(run.struck), len(driver.starts))
        if verdict.wrong:
            if not local:
                mirror(out, folder / "out")
            raise Failed(f"run {number}: " + "; ".join(verdict.wrong[:10]))

    def _command(self, shape: Shape) -> list[str]:
        settings = {
            "cluster.replicas": shape.replicas,
            "cluster.index_actors": shape.index_actors,
            "cluster.window": shape.window,
            "cluster.max_retries": MAX_RETRIES,
        }
        if not (self.args.teacher or self.endpoint):
            settings["generator.seconds_per_ask"] = SECONDS_PER_LOT * shape.replicas / LOT_SIZE
        command = ["produce", self._recipe()]
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        return command

    def _tell(self, number: int, verdict: Verdict, num_kills: int, num_starts: int, which: str = "") -> None:
        self.say(
            f"run {number}{which}: {num_kills} kills, {num_starts} start(s) of the driver; "
            f"{verdict.num_shards} shards, {verdict.num_rows} rows = "
            f"{verdict.num_kept} kept + {verdict.num_rows - verdict.num_kept} rejected, "
            f"{len(verdict.lost)} lost, {len(verdict.duplicated)} twice; "
            + (f"WRONG: {len(verdict.wrong)} findings" if verdict.wrong else "the same bytes, audit ok")
        )

    def stop(self) -> None:
        """End all that was started; returns when it is gone."""
        self.nodes.stop()
        if self.endpoint and self.endpoint.url:
            self.endpoint.__exit__()
        if self.server and self.server.process and self.server.process.poll() is None:
            self.server.kill()


def mirror(uri: str, folder: Path) -> None:
    """Copy an output into a local folder, for the post-mortem."""
    store = open_store(uri)
    for entry in store.list(""):
        path = folder / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = store.read(entry.name)
        path.write_bytes(data)
        (path.parent / f"{path.name}.sha256").write_text(hashlib.sha256(data).hexdigest())
