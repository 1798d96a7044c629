"""`cartpole`: a pole on a cart that is pushed left or right, with variable masses, length, frictions and delay.

The equations are those of gymnasium's CartPole-v1 (Barto, Sutton & Anderson 1983; without friction and delay the two
are equal, and a test compares them), with their friction of the cart on the track and of the hinge. Coulomb's friction
jumps where the cart stands still; a tanh of the speed over SLOW_M_S replaces the jump.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from gristmill.generators.simulators.contract import Parameter, Simulator

GRAVITY_M_S2, PUSH_N, STEP_S = 9.8, 10.0, 0.02
MAX_POSITION_M, MAX_ANGLE_RAD = 2.4, 12 * 2 * math.pi / 360
START = 0.05  # each part of the first state is uniform in -START to START
SLOW_M_S = 0.05
STATE = ("position", "velocity", "angle", "angular_velocity")  # m, m/s, rad, rad/s
MEMORY = 2  # actions before that a linear policy sees too, for worlds with a delay
NUM_FEATURES = len(STATE) + MEMORY
ENDS = ("balanced", "angle", "position")
MAX_DELAY = 6
PARAMETERS = (
    Parameter("mass_cart", 1.0, 0.5, 2.0, "kg", 1e-3),
    Parameter("mass_pole", 0.1, 0.05, 0.5, "kg", 1e-3),
    Parameter("half_length", 0.5, 0.25, 1.0, "m", 1e-2),
    Parameter("cart_friction", 0.0, 0.0, 1.0, "N", 0),
    Parameter("hinge_friction", 0.0, 0.0, 0.02, "N m s", 0),
    Parameter("delay", 0.0, 0.0, 2.0, "steps", 0, MAX_DELAY, is_whole=True),
)


@dataclass(frozen=True)
class CartPoleSpec:
    """Settings of `cartpole`."""

    # policy: "random" pushes by chance; "linear" pushes right where a weighted sum is above 0
    policy: Literal["random", "linear"] = "linear"
    # weights of position, velocity, angle, angular velocity, last push, and push before (pushes are -1 or 1)
    weights: tuple[float, ...] = (0.06, 0.18, 0.75, 0.62, -0.1, -0.05)
    explore: float = 0.0  # share of a linear policy's pushes that are random
    max_steps: int = 200  # steps after which an episode ends as balanced

    def __post_init__(self) -> None:
        if len(self.weights) != NUM_FEATURES:
            raise ValueError(f"weights must be {NUM_FEATURES} numbers: {', '.join(STATE)}, last push, push before")
        if not 0 <= self.explore <= 1:
            raise ValueError("explore is a share: 0 to 1")
        if self.max_steps < 1:
            raise ValueError("max_steps must be at least 1")


def advance(maths: Any, state: Any, force: Any, world: Mapping[str, Any]) -> tuple[Any, Any, Any, Any]:
    """The state one Euler step of STEP_S later. `maths` is `math` for numbers, numpy for arrays of worlds.

    Barto, Sutton & Anderson 1983, appendix: with friction -mu_c sgn(v) on the cart and mu_p w at the hinge.
    """
    position, velocity, angle, turn = state
    total = world["mass_cart"] + world["mass_pole"]
    moment = world["mass_pole"] * world["half_length"]
    cosine, sine = maths.cos(angle), maths.sin(angle)
    push = force + moment * turn * turn * sine - world["cart_friction"] * maths.tanh(velocity / SLOW_M_S)
    push = push / total
    spin = (GRAVITY_M_S2 * sine - cosine * push - world["hinge_friction"] * turn / moment) / (
        world["half_length"] * (4.0 / 3.0 - world["mass_pole"] * cosine * cosine / total)
    )
    acceleration = push - moment * spin * cosine / total
    return (
        position + STEP_S * velocity,
        velocity + STEP_S * acceleration,
        angle + STEP_S * turn,
        turn + STEP_S * spin,
    )


class CartPole(Simulator):
    """Rows are whole episodes: states and pushes as lists, and how the episode ended."""

    kind: ClassVar[str] = "cartpole"
    Spec: ClassVar[type] = CartPoleSpec
    parameters: ClassVar[tuple[Parameter, ...]] = PARAMETERS

    @property
    def fields(self) -> list[pa.Field]:
        series = [pa.field(name, pa.list_(pa.float32())) for name in STATE]
        labels = [pa.field("end", pa.string()), pa.field("num_steps", pa.int32())]
        return [*series, pa.field("push", pa.list_(pa.int8())), *labels]

    def reset(self, values: Mapping[str, float], draw: np.random.Generator) -> tuple[float, ...]:
        self._world = values
        self._state: tuple[float, ...] = tuple(draw.uniform(-START, START, 4).tolist())
        self._states, self._end = [self._state], "balanced"
        self._pushes: list[int] = []
        self._waiting: deque[int] = deque([0] * int(values["delay"]))  # pushes that have not arrived; 0 is none
        return self._state

    def step(self, action: int) -> tuple[tuple[float, ...], bool]:
        """`action` is 1 (push right) or -1 (left); it arrives `delay` steps later."""
        self._waiting.append(action)
        self._state = advance(math, self._state, PUSH_N * self._waiting.popleft(), self._world)
        self._states.append(self._state)
        self._pushes.append(action)
        if abs(self._state[2]) > MAX_ANGLE_RAD:
            self._end = "angle"
        elif abs(self._state[0]) > MAX_POSITION_M:
            self._end = "position"
        return self._state, self._end != "balanced" or len(self._pushes) >= self.spec.max_steps

    def act(self, observation: tuple[float, ...], draw: np.random.Generator) -> int:
        spec = self.spec
        if spec.policy == "random" or (spec.explore and draw.random() < spec.explore):
            return 1 if draw.random() < 0.5 else -1
        last = [*self._pushes[:-3:-1], 0, 0][:MEMORY]
        return 1 if sum(w * f for w, f in zip(spec.weights, (*observation, *last))) > 0 else -1

    def row(self) -> dict[str, Any]:
        """The states before each push, and the pushes."""
        series = dict(zip(STATE, map(list, zip(*self._states[:-1]))))
        return {**series, "push": self._pushes, "end": self._end, "num_steps": len(self._pushes)}


def survival_steps(
    weights: np.ndarray, worlds: Mapping[str, np.ndarray], starts: np.ndarray, max_steps: int
) -> np.ndarray:
    """Steps that linear policies survive: int (n,), from weights (n, NUM_FEATURES), worlds of (n,) arrays and first
    states (4, n). All episodes run side by side; they equal those of `CartPole` up to rounding."""
    count = starts.shape[1]
    state = tuple(starts)
    steps, alive = np.zeros(count, int), np.ones(count, bool)
    delay = worlds["delay"].astype(int)
    pushes = np.zeros((MAX_DELAY + 1, count))  # the latest first
    places = np.arange(count)
    for _ in range(max_steps):
        features = np.stack([*state, pushes[0], pushes[1]])
        action = np.where((weights.T * features).sum(0) > 0, 1.0, -1.0)
        pushes = np.concatenate([action[None], pushes[:-1]])
        state = advance(np, state, PUSH_N * pushes[delay, places], worlds)
        steps += alive
        alive &= (np.abs(state[2]) <= MAX_ANGLE_RAD) & (np.abs(state[0]) <= MAX_POSITION_M)
        if not alive.any():
            break
        state = tuple(np.where(alive, part, 0.0) for part in state)  # what has fallen must not grow without end
    return steps
