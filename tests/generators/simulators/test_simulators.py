"""Simulators: physics as gymnasium has it, exact boxes and masks, and rows that hang on their own seeds."""

import asyncio
import io
import math
import pickle
from typing import Any

import gymnasium
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gristmill.generators.registry import generator_class
from gristmill.generators.simulators import cartpole
from gristmill.generators.simulators.cartpole import PARAMETERS, CartPole, CartPoleSpec, survival_steps
from gristmill.generators.simulators.contract import draw_parameters, with_ranges
from gristmill.generators.simulators.generator import KINDS, SimulatorGenerator, SimulatorSpec
from gristmill.generators.simulators.scene import BOX, SHAPES
from gristmill.records.errors import UserError
from gristmill.records.schema import IMAGE
from gristmill.records.spec import build
from tests.generators.canned.test_canned import asks, with_column
from tests.profiles import scaled

CENTRE = {p.name: p.centre for p in PARAMETERS}


def simulated(simulator: str, **table: Any) -> SimulatorGenerator:
    assert generator_class("simulator") is SimulatorGenerator
    return SimulatorGenerator(build(SimulatorSpec, {"simulator": simulator, **table}, "generator"))


def make(generator: SimulatorGenerator, batch: pa.RecordBatch) -> pa.RecordBatch:
    generator.open()
    return asyncio.run(generator.make(batch))


def empty(num_rows: int, **fields: Any) -> pa.RecordBatch:
    return asks(num_rows, lambda i: fields)


@pytest.mark.parametrize("simulator", sorted(KINDS))
def test_same_rows_however_batched(simulator: str) -> None:
    generator, batch = simulated(simulator), empty(12)
    out = make(generator, batch)
    assert out.schema.names[-1] == "reject" and out.column("reject").null_count == 12
    assert [f.name for f in generator.payload] == [n for n in out.schema.names if n not in batch.schema.names]
    parts = [make(pickle.loads(pickle.dumps(generator)), batch.slice(i, 5)) for i in range(0, 12, 5)]
    assert pa.Table.from_batches(parts).equals(pa.Table.from_batches([out]))
    assert len({str(row) for row in out.drop_columns(["id", "row", "seed"]).to_pylist()}) == 12
    assert generator.progress == (12, 0)
    for parameter in generator.parameters:
        values = out.column(parameter.name).to_numpy()
        assert values.min() >= parameter.low and values.max() <= parameter.high and len(set(values)) > 1


@pytest.mark.parametrize("simulator", sorted(KINDS))
def test_dead_bad_and_empty_asks(simulator: str) -> None:
    batch = with_column(empty(6), "reject", [None, "source:gone", None, None, None, None])
    name = simulated(simulator).parameters[0].name
    batch = with_column(batch, "ask", ["{}", "{}", "{no", '{"colour": 1}', f'{{"{name}": "x"}}', f'{{"{name}": 1e9}}'])
    out = make(simulated(simulator), batch).to_pylist()
    assert [row["reject"] for row in out] == [
        *(None, "source:gone", "generator:malformed_ask", "generator:unknown_parameter"),
        *("generator:impossible_value", "generator:impossible_value"),
    ]
    assert out[0]["finish"] == "stop" and out[1][name] is None and out[1]["tokens_out"] is None
    assert make(simulated(simulator), empty(0)).num_rows == 0


def test_an_ask_fixes_a_parameter_and_no_other_draw() -> None:
    generator = simulated("cartpole")
    free, fixed = make(generator, empty(5)), make(generator, empty(5, mass_cart=1.5, delay=None))
    assert fixed.column("mass_cart").to_pylist() == [1.5] * 5
    assert fixed.column("half_length").equals(free.column("half_length"))
    chosen = simulated("cartpole", conditions=["delay"])
    assert chosen.fields_read() == ["delay"]
    assert make(chosen, empty(3, delay=2, other="x")).column("delay").to_pylist() == [2] * 3


def test_identity_is_what_changes_rows() -> None:
    plain = simulated("cartpole").identity()
    assert simulated("cartpole", pooled=True, num_cpus=2).identity() == plain
    changed = [
        simulated("scene"),
        simulated("cartpole", ranges={"delay": [1]}),
        simulated("cartpole", settings={"policy": "random"}),
        simulated("cartpole", conditions=["delay"]),
    ]
    assert all(c.identity() != plain for c in changed)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"simulator": "cartpol"}, "simulator: unknown kind 'cartpol'.*did you mean 'cartpole'"),
        ({"simulator": "cartpole", "settings": {"polcy": 1}}, "generator.settings: unknown key 'polcy'"),
        ({"simulator": "cartpole", "settings": {"weights": [1.0]}}, "weights must be 6 numbers"),
        ({"simulator": "cartpole", "ranges": {"dely": [1]}}, "ranges: no parameter 'dely'.*did you mean 'delay'"),
        ({"simulator": "cartpole", "ranges": {"delay": [2, 1]}}, "ranges.delay: give"),
        ({"simulator": "cartpole", "ranges": {"delay": [0, 99]}}, "ranges.delay: must lie in 0 to 6 steps"),
        ({"simulator": "cartpole", "ranges": {"mass_pole": [0.0, 1.0]}}, "ranges.mass_pole: must lie in 0.001 to inf"),
        ({"simulator": "scene", "settings": {"height": 4}}, "height and width must lie in 16 to 1024"),
        (
            {"simulator": "scene", "conditions": ["lite"]},
            "generator.conditions: no parameter 'lite'.*did you mean 'light'",
        ),
    ],
)
def test_refuses_in_one_line(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SimulatorGenerator(build(SimulatorSpec, table, "generator"))


@given(st.integers(0, 2**32), st.lists(st.booleans(), min_size=30, max_size=30))
@settings(max_examples=scaled(30))
def test_the_physics_is_that_of_gymnasium(seed: int, pushes: list[bool]) -> None:
    draw = np.random.default_rng(seed)
    env = gymnasium.make("CartPole-v1").unwrapped
    world = {**CENTRE, "mass_cart": 1.3, "mass_pole": 0.2, "half_length": 0.7}
    env.masscart, env.masspole, env.length = 1.3, 0.2, 0.7
    env.total_mass, env.polemass_length = 1.3 + 0.2, 0.2 * 0.7
    env.reset(seed=1)
    state = tuple(draw.uniform(-0.2, 0.2, 4))
    env.state = np.array(state)
    for push in pushes:
        env.step(int(push))
        state = cartpole.advance(math, state, cartpole.PUSH_N * (1 if push else -1), world)
        np.testing.assert_allclose(state, env.state, rtol=1e-12, atol=1e-12)
        if env.steps_beyond_terminated is not None:
            break


def test_friction_takes_energy_and_delay_postpones_a_push() -> None:
    still = dict(zip(("position", "velocity", "angle", "angular_velocity"), (0.0, 1.0, 0.0, 0.0)))
    free = cartpole.advance(math, tuple(still.values()), 0.0, CENTRE)
    slowed = cartpole.advance(math, tuple(still.values()), 0.0, {**CENTRE, "cart_friction": 1.0})
    assert slowed[1] < free[1] == 1.0
    swinging = (0.0, 0.0, 0.0, 1.0)
    hinge = cartpole.advance(math, swinging, 0.0, {**CENTRE, "hinge_friction": 0.02})
    assert hinge[3] < cartpole.advance(math, swinging, 0.0, CENTRE)[3]
    world = CartPole(CartPoleSpec())
    begun = {}
    for delay in (0, 2):
        world.reset({**CENTRE, "delay": delay}, np.random.default_rng(0))
        begun[delay] = [world.step(1)[0] for _ in range(4)]
    moved = [state[1] > 0.1 for state in begun[2]]
    assert begun[0][0][1] > 0.1 and moved == [False, False, True, True]


def test_many_episodes_side_by_side_are_the_single_ones() -> None:
    draw = np.random.default_rng(3)
    parameters = with_ranges(PARAMETERS, {"delay": (0, 4)})
    spec = CartPoleSpec(max_steps=120)
    worlds = [draw_parameters(parameters, draw, {}) for _ in range(40)]
    weights = np.tile(spec.weights, (40, 1)) + 0.2 * draw.standard_normal((40, 6))
    starts, single = np.zeros((4, 40)), []
    for number, (values, own) in enumerate(zip(worlds, weights)):
        episode = CartPole(CartPoleSpec(weights=tuple(own), max_steps=120)).episode(
            values, np.random.default_rng(number)
        )
        starts[:, number] = np.random.default_rng(number).uniform(-cartpole.START, cartpole.START, 4)
        single.append(episode["num_steps"])
    together = survival_steps(weights, {p.name: np.array([w[p.name] for w in worlds]) for p in parameters}, starts, 120)
    assert together.tolist() == single and len(set(single)) > 5


def test_the_linear_policy_balances_and_chance_does_not() -> None:
    linear = make(simulated("cartpole", ranges={p.name: [p.centre] for p in PARAMETERS}), empty(20))
    assert linear.column("end").to_pylist() == ["balanced"] * 20
    chance = make(simulated("cartpole", settings={"policy": "random"}), empty(20))
    assert chance.column("num_steps").to_numpy().mean() < 60 and "angle" in chance.column("end").to_pylist()
    for row in chance.to_pylist():
        assert len(row["angle"]) == len(row["push"]) == row["num_steps"] and set(row["push"]) <= {-1, 1}
        assert max(map(abs, row["angle"])) <= cartpole.MAX_ANGLE_RAD + 1e-6


def pixels(value: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(value["bytes"])))


def test_boxes_and_masks_are_exact() -> None:
    rows = make(simulated("scene", settings={"height": 48, "width": 80}), empty(40)).to_pylist()
    shapes = set()
    for row in rows:
        image, mask = pixels(row["image"]), pixels(row["mask"])
        assert image.shape == (48, 80, 3) and mask.shape == (48, 80)
        assert sorted(set(mask.ravel().tolist()) - {0}) == [box["object"] for box in row["boxes"]]
        assert len(row["boxes"]) <= row["num_shapes"]
        for box in row["boxes"]:
            ys, xs = np.nonzero(mask == box["object"])
            assert (xs.min(), ys.min()) == (box["x"], box["y"])
            assert (np.ptp(xs) + 1, np.ptp(ys) + 1) == (box["width"], box["height"])
            shapes.add(box["shape"])
    assert shapes == set(SHAPES)


def test_each_parameter_of_the_scene_changes_the_picture() -> None:
    generator = simulated("scene")
    plain = {p.name: p.centre for p in generator.parameters}
    base = make(generator, empty(1, **plain)).to_pylist()[0]
    for parameter in generator.parameters:
        other = make(generator, empty(1, **{**plain, parameter.name: parameter.high})).to_pylist()[0]
        assert other["image"] != base["image"], parameter.name
        if parameter.name.startswith(("light", "texture", "noise")):
            assert other["mask"] == base["mask"] and other["boxes"] == base["boxes"]
    dark = make(generator, empty(1, **{**plain, "light": 0.5, "noise": 0.0})).to_pylist()[0]
    bright = make(generator, empty(1, **{**plain, "light": 1.0, "noise": 0.0})).to_pylist()[0]
    ratio = pixels(bright["image"]).mean() / pixels(dark["image"]).mean()
    assert ratio == pytest.approx(2, rel=0.1)


def test_columns_are_declared() -> None:
    fields = {f.name: f.type for f in simulated("scene").payload}
    assert fields["image"] == fields["mask"] == IMAGE and fields["boxes"] == pa.list_(BOX)
    assert fields["num_shapes"] == pa.int64() and fields["light"] == pa.float64()
