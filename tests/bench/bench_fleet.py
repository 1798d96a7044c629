"""A simulated fleet: what the lot loop itself costs when many engines work, paced as GPUs are.

Everything is real (Ray actors, tasks, object store, dedup index, Parquet on local disk) but for two things: an engine
waits as long as a GPU would take and then answers with canned rows, and one host process answers for many replicas,
because a process each does not fit on one machine. How many real processes do fit is measured beside it, with logical
GPUs. Lots are full-sized (512 rows of 500 tokens), and engines slower than GPUs by the factor that the two cores are
short of: 1,000 GPUs of 10 rows/s commit 20 such lots a second, here it is LOTS_PER_S.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.order import simulate

FLEETS = (10, 100, 1000, 10_000)
LOTS_PER_S = 8
LOT_SIZE = 512
SECONDS = 40  # measured, after every engine has its lots
NUM_PROCESSES = 48
NUM_ENGINES, NUM_LOTS, LOT_S, SPREADS = 10_000, 400_000, 102.4, (0.05, 0.2, 0.35, 0.5)

FLEET = """
import asyncio, copy, json, os, random, sys, time
import psutil, ray
import gristmill.cluster.lots.loop as run
from gristmill.cluster.lots import job as jobs
from gristmill.cluster.connect import WORKER_ENV
from gristmill.cluster.pools.fleet import Fleet
from gristmill.cluster.pools.member import Member
from gristmill.cluster.pools.pool import Pool
from gristmill.cluster.pools import replica
from gristmill.cluster.pools.replica import Replica
from gristmill.cluster.lots.work import LotPipeline
from gristmill.cluster.room.runs import Grant, RunRequest
from gristmill.cluster.room.seat import Seat
from gristmill.generators.canned.generator import Canned
from gristmill.engines.errors import EngineDead
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.stores.local import LocalStore

recipe, out, num_replicas, lots_per_s, seconds = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
HOSTS, PER_REPLICA, DAY_S = 2, 2, 86_400
lot_s = num_replicas * PER_REPLICA / lots_per_s
pause = out + "-pause"  # while this file exists, no lot ends

class Paced(Canned):
    '''Takes as long as a GPU would for a lot, give or take a third, and is lost once a day.'''
    async def make(self, asks):
        lot = asks.column("lot")[0].as_py()
        fleet = num_replicas * PER_REPLICA
        draw = random.Random(f"{lot} {os.getpid()}")
        duration_s = lot_s * draw.lognormvariate(0, 0.35)
        duration_s *= (lot + 1) / fleet if lot < fleet else 1  # else all would come in waves
        if draw.random() < duration_s / DAY_S:
            await asyncio.sleep(duration_s * draw.random())
            raise EngineDead("lost")
        await asyncio.sleep(duration_s)
        while os.path.exists(pause):
            await asyncio.sleep(1.0)
        return await super().make(asks)

@ray.remote
class Host:
    '''Many replicas in one process, each with a worker of its own.'''
    def __init__(self, worker, number):
        replica.LOOK_S = 5.0  # in a process each, every one looks 20 times a second
        kind = Replica.__ray_metadata__.modified_class
        self.replicas = [kind(copy.copy(worker)) for _ in range(number)]
    async def call(self, at, name, *arguments):
        return await getattr(self.replicas[at], name)(*arguments)
    @ray.method(num_returns=2)
    async def make(self, at, *arguments):
        return await self.replicas[at].make(*arguments)

class Bound:
    def __init__(self, method, *arguments):
        self.method, self.arguments = method, arguments
    def remote(self, *more):
        return self.method.remote(*self.arguments, *more)

class Handle:
    '''Stands for the actor of one replica.'''
    def __init__(self, host, at):
        self.make = Bound(host.make, at)
        self.where, self.open, self.report = (Bound(host.call, at, name) for name in ("where", "open", "report"))

class Hosted(Fleet):
    '''Many replicas on few host processes.'''
    hosts, num_added = [], 0
    def add(self, number=None, num_lost=0):
        if not self.hosts:
            size = -(-num_replicas // HOSTS) + 50  # and those that come for the lost ones
            options = {"num_cpus": 0, "max_concurrency": size * (PER_REPLICA + 2)}
            self.hosts += [Host.options(**options).remote(self.worker_ref, size) for _ in range(HOSTS)]
        at = self.num_added
        self.num_added += 1
        number = len(self.members)
        actor = Handle(self.hosts[at % HOSTS], at // HOSTS)
        member = Member(number, actor, None, actor.where.remote(), actor.open.remote(), time.monotonic())
        self.members.append(member)
        self.starting[member] = None
        self.width += 1
        return member
    def remove(self, member, state, why=None):
        self.num_open -= member.open_ref is None
        self.width -= not member.is_leaving
        self.starting.pop(member, None)
        self.feeder.close(member)
        self.members.remove(member)
        lost.append(state)

class HostedPool(Pool):
    def new_fleet(self, allowed):
        return Hosted(self.name, self.worker, self.needs, self.feeder, allowed, self.note)
    def stop(self):
        for host in self.fleet.hosts:
            ray.kill(host)

class Whole(Seat):
    '''A place on a cluster with room for all replicas.'''
    def poll(self, report, num_engines):
        self.grant = Grant(True, {'generator': num_replicas}, '', 2.0)

jobs.Pool = HostedPool
env = {"env_vars": WORKER_ENV}
ray.init(address="local", num_cpus=2, include_dashboard=False, runtime_env=env, log_to_driver=False)
widths = [f"cluster.replicas={num_replicas}", f"cluster.lots_per_replica={PER_REPLICA}", "cluster.window_mb=1000000"]
mill = compile_recipe(load(recipe, widths))
generator = Paced(mill.generator.spec, mill.method)
pipeline = LotPipeline(mill.plan, mill.stages, mill.schema, mill.recipe.output)
seat = Whole(RunRequest("out", "fleet", "bench"))
seat.is_shared = False
seat.poll(None, 0)
pools = {"generator": generator}
job = jobs.Job(pipeline, mill.source, LocalStore(out), mill.recipe.cluster, mill.recipe.limits, seat, pools)
me, lags, lost = psutil.Process(), [], []
began, windows = time.monotonic(), {"start": [], "lots": [], "settle": [], "idle": []}
phases = iter(windows)
phase, ends_at = next(phases), None

def beat(state):
    '''Measures two periods: one in which lots end, and one in which none does, for the fixed cost of the fleet.'''
    global phase, ends_at
    now, cpu = time.monotonic(), me.cpu_times()
    windows[phase].append((now, state.totals.num_lots, time.thread_time(), cpu.user + cpu.system, me.memory_info().rss))
    if phase == "lots":
        lags.append(state.commit_lag_s)
    if phase == "start":
        is_full = state.in_flight.get("making", 0) > 0.98 * num_replicas * PER_REPLICA
        is_over = is_full and state.totals.num_lots >= 5 * lots_per_s
    else:
        is_over = now > ends_at
    if not is_over:
        return
    if phase == "lots":
        open(pause, "w").close()
    if phase == "idle":
        loop.stop()
    else:
        phase = next(phases)
        ends_at = now + seconds / (1 if phase == "lots" else 2)  # in "settle", lots that have been made go their way

def spent(name):
    '''Seconds, lots, and CPU seconds of the loop's thread and of the process, in a period.'''
    first, last = windows[name][0], windows[name][-1]
    return [after - before for before, after in zip(first[:4], last[:4])]

loop = run.LotLoop(job, beat)
loop.run()
lots_s, lots, loop_s, driver_s = spent("lots")
idle_s, _, idle_loop_s, idle_driver_s = spent("idle")
share, driver_share = idle_loop_s / idle_s, idle_driver_s / idle_s
print(json.dumps({
    "start_s": windows["start"][-1][0] - began,
    "lots_per_s": lots / lots_s,
    "loop_ms": loop_s / lots * 1000,
    "loop_share": share,
    "lot_loop_ms": (loop_s - share * lots_s) / lots * 1000,
    "driver_ms": driver_s / lots * 1000,
    "driver_share": driver_share,
    "rss_mb": windows["lots"][-1][4] / 2**20,
    "grown_mb": (windows["lots"][-1][4] - windows["lots"][0][4]) / 2**20,
    "num_lots": lots,
    "lag_s": sorted(lags)[len(lags) // 2],
    "lag_max_s": max(lags),
    "num_lost": lost.count("lost"),
}))
"""

PROCESSES = """
import json, queue, sys, time
import psutil, ray
from gristmill.cluster.connect import WORKER_ENV
from gristmill.cluster.pools.pool import Pool
from gristmill.cluster.spec import ClusterSpec, PoolSpec
from gristmill.engines.needs import Needs

class Idle:
    progress, throttle = (0, 0), None
    def open(self): ...
    async def facts(self):
        return {}
    def close(self): ...

number = int(sys.argv[1])
ray.init(address="local", num_cpus=number + 2, num_gpus=number, include_dashboard=False,
         runtime_env={"env_vars": WORKER_ENV}, log_to_driver=False)
used = psutil.virtual_memory().used
pool = Pool("fleet", Idle(), Needs(num_gpus=1), PoolSpec(replicas=number), ClusterSpec(), lambda event, **values: None,
            queue.SimpleQueue(), lambda: number)
started = time.monotonic()
pool.start()
while pool.num_open < number:
    pool.poll()
    time.sleep(0.05)
print(json.dumps({"seconds": time.monotonic() - started, "mb": (psutil.virtual_memory().used - used) / 2**20}))
"""


def _script(text: str, *arguments: Any) -> dict[str, Any]:
    command = [sys.executable, "-c", text, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    # Ray has its say on stdout, too.
    return json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{")))


def _recipe(folder: Path) -> str:
    path = folder / "fleet.toml"
    path.write_text(
        f'name = "fleet"\nlot_size = {LOT_SIZE}\nsource = {{items = ["a river"], cycle = true}}\n'
        'generator = {kind = "canned", num_words = 375, pooled = true}\n'
        'stages = [{kind = "finish"}, {kind = "dedup"}]\nlimits = {asks = 80000000}\n'
    )
    return str(path)


def bench() -> list[dict[str, Any]]:
    rows = []
    for num_replicas in FLEETS:
        with tempfile.TemporaryDirectory() as folder:
            recipe = _recipe(Path(folder))
            fleet = _script(FLEET, recipe, f"{folder}/out", num_replicas, LOTS_PER_S, SECONDS)
        rows.append(
            {
                "what": f"lot loop, {num_replicas:,} replicas (simulated), CPU of its thread",
                "value": f"{fleet['lot_loop_ms']:.1f} ms a lot, and {fleet['loop_share']:.1%} of a core without any",
                "peer": f"in all {fleet['loop_ms']:.1f} ms a lot at {fleet['lots_per_s']:.1f} lots/s; the whole driver "
                f"{fleet['driver_ms']:.1f}; commit lag {fleet['lag_s']:.2f} s (most {fleet['lag_max_s']:.1f}), "
                f"{fleet['num_lost']} engines lost, {fleet['rss_mb']:.0f} MB, {fleet['grown_mb']:+.1f} MB over "
                f"{fleet['num_lots']:,} lots",
                "target": "<= 5 ms a lot" if num_replicas >= 1000 else "",
            }
        )
    for sigma in SPREADS:
        order = simulate(NUM_ENGINES, NUM_LOTS, LOT_S, sigma, 1.0, window=NUM_LOTS)
        half = simulate(NUM_ENGINES, NUM_LOTS, LOT_S, sigma, 1.0, window=order.num_uncommitted // 2)
        rows.append(
            {
                "what": f"commits in order, simulated clock: {NUM_ENGINES:,} engines, each lost once a day, two lots "
                f"of {LOT_S:.0f} s at once, spread {sigma}",
                "value": f"{order.lots_per_s:.0f} lots/s, {order.share:.3f} of the engines' time used",
                "peer": f"{order.num_uncommitted:,} lots uncommitted at most, commit lag {order.lag_s:.0f} s (most "
                f"{order.max_lag_s:.0f}); with a window of half of them {half.share:.3f}",
            }
        )
    replicas = _script(PROCESSES, NUM_PROCESSES)
    rows.append(
        {
            "what": f"{NUM_PROCESSES} real replica processes with a logical GPU each, up",
            "value": f"{replicas['seconds']:.0f} s, {replicas['mb'] / NUM_PROCESSES:.0f} MB each",
        }
    )
    return rows
