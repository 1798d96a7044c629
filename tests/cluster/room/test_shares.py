"""Runs divide a cluster: by priority, arrival and weight; nobody gets more than there is, or waits for ever."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.cluster.room.capacity import Capacity
from gristmill.cluster.room.queue import RunQueue
from gristmill.cluster.room.runs import Grant, PoolRequest, QueuedRun, RunReport, RunRequest
from gristmill.cluster.room.shares import Division
from gristmill.engines.needs import Needs

GPU = Needs(num_cpus=1.0, num_gpus=1.0)


def node(cpus: float = 16, gpus: float = 8) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus, "memory": 2.0**40}


def nodes(number: int, **resources: float) -> dict[str, dict[str, float]]:
    return {f"node{at}": node(**resources) for at in range(number)}


def run(name: str, arrival: int, replicas: int = 1, most: int | None = None, needs: Needs = GPU, **values) -> QueuedRun:
    pool = PoolRequest("generator", needs, replicas, most or replicas)
    return QueuedRun(RunRequest(name, name, "somebody", (pool,), **values), f"job of {name}", arrival, 0.0)


def widths(cluster: dict, *runs: QueuedRun, quotas: dict | None = None) -> dict[str, int]:
    """The engines of each run, -1 for one that waits."""
    grants = Division(cluster, runs, quotas or {}).grants()
    return {name: grant.widths["generator"] if grant.is_admitted else -1 for (name, _), grant in grants.items()}


def admitted(queued: QueuedRun, *placed: str) -> QueuedRun:
    queued.report = RunReport(True, {"generator": placed})
    return queued


def test_a_run_that_does_not_fit_beside_another_waits_and_says_for_what() -> None:
    first = admitted(run("first", 1, 3, needs=Needs()), "node0", "node0", "node0")
    second = run("second", 2, 3, needs=Needs())
    grants = Division(nodes(1, cpus=4, gpus=0), [first, second], {}).grants()
    assert grants["first", "job of first"].widths == {"generator": 3}
    assert not grants["second", "job of second"].is_admitted
    assert "place 1 of 1 in the queue" in grants["second", "job of second"].why
    assert "first of somebody holds 3 engines" in grants["second", "job of second"].why


@pytest.mark.parametrize(
    ("cluster", "runs", "expected"),
    [
        pytest.param(nodes(1), [("a", 1, 1, 8, 3.0), ("b", 2, 1, 8, 1.0)], {"a": 6, "b": 2}, id="weights"),
        pytest.param(nodes(1), [("a", 1, 1, 8, 1.0), ("b", 2, 1, 8, 1.0)], {"a": 4, "b": 4}, id="equal"),
        pytest.param(nodes(1), [("a", 1, 8, 8, 1.0), ("b", 2, 1, 8, 1.0)], {"a": 8, "b": -1}, id="fixed before"),
        pytest.param(nodes(1), [("a", 1, 1, 2, 9.0), ("b", 2, 1, 8, 1.0)], {"a": 2, "b": 6}, id="what one leaves"),
        pytest.param(nodes(4), [("a", 1, 1, 40, 1.0), ("b", 2, 30, 30, 1.0)], {"a": 2, "b": 30}, id="least first"),
    ],
)
def test_the_rest_goes_by_weight(cluster: dict, runs: list, expected: dict) -> None:
    queued = [run(name, at, least, most, share=share) for name, at, least, most, share in runs]
    assert widths(cluster, *queued) == expected


def test_a_higher_priority_takes_engines_and_gives_them_back() -> None:
    low, high = run("low", 1, 4, 8), run("high", 2, 6, 6, priority=5)
    assert widths(nodes(1), low, high) == {"low": -1, "high": 6}
    assert widths(nodes(1), admitted(low, *["node0"] * 8), high) == {"low": 2, "high": 6}
    assert widths(nodes(1), low) == {"low": 8}


def test_a_small_run_does_not_overtake_a_large_one_that_waits() -> None:
    first = admitted(run("first", 1, 4), *["node0"] * 4)
    assert widths(nodes(1), first, run("large", 2, 8), run("small", 3, 1)) == {"first": 4, "large": -1, "small": -1}
    on_cpus = run("on CPUs", 4, 2, needs=Needs())
    cluster = nodes(1, cpus=32)
    assert widths(cluster, first, run("large", 2, 8), on_cpus)["on CPUs"] == 2  # it takes nothing of the GPUs


def test_a_run_that_no_node_can_hold_keeps_no_room_from_others() -> None:
    huge, small = run("huge", 1, 1, needs=Needs(num_gpus=64)), run("small", 2, 1)
    assert widths(nodes(1), huge, small) == {"huge": -1, "small": 1}


def test_with_an_autoscaler_a_run_starts_before_its_nodes_are_there() -> None:
    growing = run("growing", 1, 4, 32, can_grow=True)
    assert widths(nodes(1, gpus=0), growing) == {"growing": 32}


def test_cores_for_stages_leave_gpus_their_cpus() -> None:
    cluster = {"gpu": node(cpus=1, gpus=1), "cpu": node(cpus=2, gpus=0), "large": node(cpus=2, gpus=1)}
    grants = Division(cluster, [run("a", 1, 2)], {}).grants()
    assert grants["a", "job of a"].widths == {"generator": 2} and grants["a", "job of a"].lane == ("cpu",)
    grants = Division({"gpu": cluster["gpu"], "large": cluster["large"]}, [run("a", 1, 2)], {}).grants()
    assert grants["a", "job of a"].widths == {"generator": 2} and grants["a", "job of a"].lane == ("large",)


def test_an_endpoint_takes_no_device_and_leaves_a_single_core_to_the_stages() -> None:
    remote = run("remote", 1, 2, 8, needs=Needs(num_cpus=0.0, is_remote=True), labels={"team": "x"})
    assert widths(nodes(1, cpus=1, gpus=0), remote, quotas={"team=x": 1}) == {"remote": 8}
    assert remote.num_devices == 0.0


def test_quotas_bound_all_runs_of_a_label() -> None:
    a, b = run("a", 1, 2, 8, labels={"team": "x"}), run("b", 2, 2, 8, labels={"team": "x"})
    other = run("other", 3, 1, 8, labels={"team": "y"})
    assert widths(nodes(2), a, b, other, quotas={"team=x": 6}) == {"a": 3, "b": 3, "other": 8}
    grants = Division(nodes(2), [a, b], {"team=x": 3}).grants()
    assert "the quota of team=x is 3 devices, 2 are taken" in grants["b", "job of b"].why
    assert grants["a", "job of a"].widths == {"generator": 3}


def test_engines_are_counted_where_they_are() -> None:
    # Four engines of two GPUs fit on two nodes of four, but not where single GPUs have been taken on each.
    pair = run("pairs", 2, 1, 8, needs=Needs(num_gpus=2.0))
    spread = admitted(run("spread", 1, 2), "node0", "node1")
    assert widths(nodes(2, gpus=4), spread, pair) == {"spread": 2, "pairs": 2}


RUNS = st.lists(
    st.tuples(
        st.integers(1, 6), st.integers(0, 12), st.sampled_from([0, 1, 2, 4]), st.floats(0.25, 8), st.integers(0, 2),
        st.booleans(), st.sampled_from(["x", "y", ""]),
    ),
    max_size=6,
)  # fmt: skip


@given(RUNS, st.lists(st.tuples(st.integers(1, 16), st.integers(0, 8)), min_size=1, max_size=6), st.integers(1, 20))
def test_what_is_granted_fits_and_minimums_are_all_or_none(drawn: list, shapes: list, quota: int) -> None:
    cluster = {f"node{at}": node(cpus, gpus) for at, (cpus, gpus) in enumerate(shapes)}
    queued = []
    for at, (least, more, gpus, share, priority, is_admitted, team) in enumerate(drawn):
        labels = {"team": team} if team else {}
        needs = Needs(num_gpus=float(gpus))
        one = run(f"run{at}", at, least, least + more, needs, share=share, priority=priority, labels=labels)
        queued.append(admitted(one) if is_admitted else one)
    grants = Division(cluster, queued, {"team=x": quota}).grants()
    granted = [one for one in queued if grants[one.key].is_admitted]
    for one in granted:
        pool = one.request.pools[0]
        width = grants[one.key].widths["generator"]
        assert width <= pool.max_replicas
        assert one.report.is_admitted or width >= pool.replicas
    for name in ("CPU", "GPU"):
        taken = math.fsum(
            grants[one.key].widths["generator"] * one.request.pools[0].needs.bundles[0].get(name, 0.0)
            for one in granted
        )
        assert taken <= sum(resources[name] for resources in cluster.values())
    used = sum(grants[o.key].widths["generator"] * o.request.pools[0].needs.num_devices
               for o in granted if o.request.labels)  # fmt: skip
    assert not [o for o in granted if o.request.labels.get("team") == "x"] or used >= 0
    in_quota = sum(
        grants[o.key].widths["generator"] * o.request.pools[0].needs.num_devices
        for o in granted
        if o.request.labels.get("team") == "x"
    )
    assert in_quota <= quota


@given(st.lists(st.tuples(st.floats(0.2, 5), st.integers(20, 64)), min_size=2, max_size=5))
def test_shares_are_within_an_engine_of_the_weights(drawn: list) -> None:
    queued = [run(f"run{at}", at, 1, most, share=share) for at, (share, most) in enumerate(drawn)]
    got = widths(nodes(8), *queued)
    assert sum(got.values()) == min(64, sum(most for _, most in drawn))
    for one in queued:  # no run that could take more is below another by more than one engine
        if got[one.request.run] < one.request.pools[0].max_replicas:
            for other in queued:
                if got[other.request.run] > 1:
                    mine = (got[one.request.run] + 1) / one.request.share
                    assert mine >= (got[other.request.run] - 1) / other.request.share - 1e-9


def test_capacity_takes_bundles_all_or_none() -> None:
    capacity = Capacity({"a": {"CPU": 2, "GPU": 1}, "b": {"CPU": 1, "GPU": 1}})
    across = Needs(num_gpus=3.0, across_nodes=True)
    assert not capacity.take(across.bundles)
    assert capacity.total("GPU") == 2 and capacity.total("CPU") == 3
    assert capacity.take_many(GPU, 5) == 2
    assert capacity.take_many(Needs(), 5) == 1


class Cluster:
    """What a queue sees of a cluster."""

    def __init__(self, **resources: float) -> None:
        self.nodes = nodes(1, **resources)
        self.used = {"node0": {"CPU": 0.0, "GPU": 0.0, "memory": 0.0}}
        self.dead: list[str] = []
        self.queue = RunQueue(lambda: (self.nodes, self.used), lambda: self.dead)

    def sync(self, one: QueuedRun, *placed: str, is_admitted: bool = False, num_tasks: int = 0) -> Grant:
        self.queue._looked = self.queue._divided = float("-inf")
        report = RunReport(is_admitted, {"generator": placed}, ("node0",) if is_admitted else (), num_tasks)
        return self.queue.sync(one.request, one.job, report)


def test_a_run_that_ends_makes_room_for_the_next() -> None:
    cluster = Cluster(cpus=8, gpus=2)
    first, second = run("first", 1, 2), run("second", 2, 2)
    assert cluster.sync(first).is_admitted
    assert not cluster.sync(second).is_admitted
    cluster.dead.append(first.job)
    assert cluster.sync(second).is_admitted
    cluster.queue.leave("second", "another job")
    assert list(cluster.queue.runs) == [second.key]
    cluster.queue.leave("second", second.job)
    assert not cluster.queue.runs


def test_a_queue_that_was_restarted_takes_runs_in_again() -> None:
    cluster = Cluster(cpus=8, gpus=2)
    waiting, going = run("waiting", 1, 2), run("going", 2, 2)
    assert cluster.sync(going, "node0", "node0", is_admitted=True).is_admitted
    assert not cluster.sync(waiting).is_admitted


def test_what_other_programs_hold_is_no_room_but_what_comes_and_goes_is() -> None:
    cluster = Cluster(cpus=8, gpus=4)
    one = run("one", 1, 1, 4)
    cluster.used["node0"]["GPU"] = 3.0
    cluster.sync(one)
    assert cluster.sync(one).widths == {"generator": 1}
    cluster.used["node0"]["GPU"] = 1.0  # that engine, once it is placed
    cluster.sync(one, "node0", is_admitted=True)
    assert cluster.sync(one, "node0", is_admitted=True).widths == {"generator": 4}
    cluster.used["node0"]["GPU"] = 4.0  # its own engines, of which three have not reported a node yet
    for _ in range(3):
        assert cluster.sync(one, "node0", is_admitted=True).widths == {"generator": 4}
    cluster.used["node0"]["CPU"] = 8.0  # its own tasks on idle cores
    for _ in range(3):
        assert cluster.sync(one, *["node0"] * 4, is_admitted=True, num_tasks=3).widths == {"generator": 4}


def test_engines_that_wait_for_the_next_step_of_a_flow_are_its_own_room() -> None:
    cluster = Cluster(cpus=8, gpus=2)
    step = run("step", 1, 2)
    cluster.sync(step, "node0", "node0", is_admitted=True)
    cluster.used["node0"] = {"CPU": 3.0, "GPU": 2.0, "memory": 0.0}
    cluster.sync(step, "node0", "node0", is_admitted=True)
    cluster.queue.leave("step", step.job, [("node0", {"CPU": 1.0, "GPU": 1.0})] * 2)
    cluster.used["node0"]["CPU"] = 2.0
    following = run("following", 2, 2)
    following.job = step.job
    assert cluster.sync(following).is_admitted


def test_tasks_step_back_from_the_core_of_an_engine_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(cpus=3, gpus=2)  # a core of it is reserved
    one = run("one", 1, 1, 2, can_grow=True)
    cluster.nodes["head"] = node(cpus=4, gpus=0)

    def spare(num_cpus: float, num_gpus: float) -> float:
        """The spare cores with one engine placed and so much of its node in use."""
        cluster.used |= {"node0": {"CPU": num_cpus, "GPU": num_gpus}, "head": {"CPU": 2.0}}
        cluster.sync(one, "node0", is_admitted=True, num_tasks=3)
        return cluster.sync(one, "node0", is_admitted=True, num_tasks=3).spare_cpus

    assert spare(2, 1) == 4
    assert spare(3, 1) == 0  # a task has the core of the second engine
    assert spare(2, 1) == 4  # Ray places the engine next
    assert spare(3, 2) == 4  # it is there, and has not reported its node
    assert spare(3, 1) == 0
    monkeypatch.setattr("gristmill.cluster.room.queue.SETTLE_S", 0.0)
    assert spare(3, 1) == 4  # it has waited for long, so tasks are not the reason
