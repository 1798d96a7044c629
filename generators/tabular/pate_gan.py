"""PATE-GAN (Jordon, Yoon, van der Schaar 2019): teachers on disjoint parts of the rows vote on generated rows.

Every row belongs to one teacher, drawn independently for each row, so a row changes each count of votes by at most 1. A
count with Gaussian noise is one event of the account. Its bound holds for all votes (Papernot et al. 2018, without
their data-dependent bound, which would itself be secret). The student learns only from generated rows and their noisy
counts, which are stored and reused. The generator learns only from the student.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gristmill.generators.families.contract import State, stream
from gristmill.generators.private.account import Account
from gristmill.generators.private.accountants import Event
from gristmill.generators.tabular.encoding.binned_net import BinnedNet, BinnedSpec, weights_seed
from gristmill.records.errors import UserError

FAKES, PARTS, DRAWS, VOTES, STUDENT, GENERATE = 3, 4, 5, 6, 8, 9  # purposes of a step's random numbers
ROWS_OF_TEACHER = 32
EVENT = "noisy count of votes on one generated row"


@dataclass(frozen=True)
class PateGanSpec(BinnedSpec):
    """Settings of `pate_gan`. `batch` is that of student and generator."""

    steps: int = 1000  # training steps; each trains teachers, collects votes, and trains student and generator
    teachers: int | None = None  # number of teachers; default: one for 32 rows
    teacher_width: int = 8  # units of a teacher's hidden layer
    teacher_batch: int = 16  # rows of its own, and as many generated rows, that each teacher sees in a step
    votes: int = 16  # generated rows that teachers vote on in a step
    memory: int = 16_000  # newest votes that the student learns from
    student_steps: int = 1  # student steps in each training step
    student_widths: tuple[int, ...] = (64,)  # units of the student's hidden layers
    learning_rate: float = 5e-4  # learning rate of the generator
    teacher_learning_rate: float = 2e-3  # learning rate of the teachers
    student_learning_rate: float = 1e-3  # learning rate of the student
    student_decay: float = 0.1  # weight decay of the student
    heat: float = 0.5  # temperature of the softmax that carries the generator's gradient
    marginal_weight: float = 4.0  # weight of the generator's distance from the noisy counts, in nats a column

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = self.teacher_batch, self.votes, self.memory, self.student_steps
        if min(counts) < 1 or (self.teachers is not None and self.teachers < 2):
            raise ValueError("teacher_batch, votes, memory and student_steps must be at least 1, and teachers 2")


class PateGan(BinnedNet):
    """Teachers, student and generator over one-hot bins."""

    kind: ClassVar[str] = "pate_gan"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = PateGanSpec

    def begin(self, table: pa.Table, seed: int, account: Account | None) -> None:
        spec = self.spec
        self._num_teachers = spec.teachers or max(2, table.num_rows // ROWS_OF_TEACHER)
        if self._num_teachers > table.num_rows / 2:
            raise UserError(f"pate_gan: {self._num_teachers} teachers are too many for {table.num_rows} rows")
        self._rows = self.learn_bins(table, seed, account)
        self._parts, self._part_sizes = parts(seed, table.num_rows, self._num_teachers)
        self._noise = 0.0
        if account:
            num_votes = spec.steps * spec.votes
            self._noise = account.spec.noise_multiplier or account.noise_for(EVENT, 1.0, num_votes)
            if account.room(Event(EVENT, self._noise), num_votes) < spec.votes:
                raise UserError(f"privacy: the votes of one step with noise {self._noise:g} do not fit; raise it")
        self._vote_rows = np.zeros((0, len(self.sizes)), np.int64)
        self._shares = np.zeros(0, np.float32)

    def make_nets(self, seed: int) -> None:
        import torch

        from gristmill.generators.nets.binned import module_from_seed, perceptron
        from gristmill.generators.nets.teachers import Teachers

        spec, num_in = self.spec, sum(self.sizes)
        self.student = module_from_seed(weights_seed(seed, 1), perceptron, num_in, spec.student_widths, 1).to(
            self.device
        )
        self.teachers = module_from_seed(
            weights_seed(seed, 2), Teachers, self._num_teachers, num_in, spec.teacher_width
        ).to(self.device)
        self.nets |= {"student": self.student, "teachers": self.teachers}
        betas = (0.5, 0.9)
        self.adams = {
            "decoder": torch.optim.Adam(self.decoder.parameters(), spec.learning_rate, betas),
            "student": torch.optim.AdamW(
                self.student.parameters(), spec.student_learning_rate, betas, weight_decay=spec.student_decay
            ),
            "teachers": torch.optim.Adam(self.teachers.parameters(), spec.teacher_learning_rate, betas),
        }

    def training_state(self) -> State:
        state = super().training_state()
        state.tensors |= {"votes/asked": self._vote_rows, "votes/shares": self._shares}
        return state

    def restore(self, model_state: State, training_state: State | None = None) -> None:
        super().restore(model_state, training_state)
        if training_state:
            self._vote_rows, self._shares = (
                training_state.tensors["votes/asked"],
                training_state.tensors["votes/shares"],
            )

    def train(self, start: int, stop: int) -> Mapping[str, float]:
        """Returns the losses of student and generator: functions of noisy votes, which may be published."""
        student, generator = [], []
        for step in range(start, stop):
            if self.account:
                self.account.charge(Event(EVENT, self._noise, 1.0, self.spec.votes))
            self._teach(step)
            self._vote(step)
            student.append(self._learn(step))
            generator.append(self._generate(step))
        return {"student": float(np.mean(student)), "generator": float(np.mean(generator))}

    def _teach(self, step: int) -> None:
        """Train each teacher on real rows of its part (with replacement) and on generated rows, which all share."""
        import torch
        from torch.nn.functional import softplus

        from gristmill.generators.nets.binned import one_hot

        spec = self.spec
        levels = stream(self.seed, step, DRAWS).random((self._num_teachers, spec.teacher_batch))
        places = np.floor(levels * self._part_sizes[:, None]).astype(np.int64)
        teacher_rows = np.take_along_axis(self._parts, places, axis=1)
        real = one_hot(self._rows[teacher_rows.ravel()], self.sizes, self.device).reshape(
            self._num_teachers, spec.teacher_batch, -1
        )
        has_rows = torch.as_tensor(self._part_sizes > 0)[:, None].to(self.device)
        fake = self.fakes(step, FAKES, spec.teacher_batch)
        loss = (softplus(-self.teachers(real)) * has_rows).mean(1).sum() + softplus(self.teachers(fake)).mean(1).sum()
        self.adams["teachers"].zero_grad()
        loss.backward()
        self.adams["teachers"].step()

    def _vote(self, step: int) -> None:
        """Collect noisy votes on new generated rows; store the rows, as bins, and the shares of teachers."""
        import torch

        from gristmill.generators.nets.binned import blocks

        fakes = self.fakes(step, VOTES, self.spec.votes)
        with torch.no_grad():
            counts = (self.teachers(fakes) > 0).sum(0).double().cpu().numpy()
        counts = counts + self._noise * stream(self.seed, step, VOTES, 1).standard_normal(len(counts))
        bins = blocks(fakes, self.sizes).argmax(2).cpu().numpy()
        self._vote_rows = np.concatenate([self._vote_rows, bins])[-self.spec.memory :]
        self._shares = np.concatenate([self._shares, counts / self._num_teachers])[-self.spec.memory :].astype(
            np.float32
        )

    def _learn(self, step: int) -> float:
        """Train the student. Cross-entropy is linear in the shares, so unclipped noise averages out."""
        import torch
        from torch.nn.functional import softplus

        from gristmill.generators.nets.binned import one_hot

        total = 0.0
        random = stream(self.seed, step, STUDENT)
        for _ in range(self.spec.student_steps):
            batch = random.integers(len(self._vote_rows), size=self.spec.batch)
            logits = self.student(one_hot(self._vote_rows[batch], self.sizes, self.device)).squeeze(1)
            shares = torch.as_tensor(self._shares[batch]).to(self.device)
            loss = (softplus(logits) - shares * logits).mean() + 0.01 * logits.square().mean()
            self.adams["student"].zero_grad()
            loss.backward()
            self.adams["student"].step()
            total += float(loss.detach())
        return total / self.spec.student_steps

    def _generate(self, step: int) -> float:
        from torch.nn.functional import softplus

        from gristmill.generators.nets.binned import follow

        fakes = self.live_fakes(step, GENERATE, self.spec.batch)
        loss = softplus(-self.student(fakes)).mean() + self.spec.marginal_weight * self.marginal_distance(fakes)
        self.adams["decoder"].zero_grad()
        loss.backward()
        self.adams["decoder"].step()
        follow(self.average, self.decoder, self.spec.average)
        return float(loss.detach())


def parts(seed: int, num_rows: int, num_teachers: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows of each teacher, int64 (teachers, most), padded with row 0; number of rows of each teacher).

    The teacher of a row is drawn independently of other rows.
    """
    owner = stream(seed, 0, PARTS).integers(num_teachers, size=num_rows)
    sizes = np.bincount(owner, minlength=num_teachers)
    rows = np.zeros((num_teachers, max(1, int(sizes.max()))), np.int64)
    order = np.argsort(owner, kind="stable")
    for teacher, part in enumerate(np.split(order, np.cumsum(sizes)[:-1])):
        rows[teacher, : len(part)] = part
    all_rows = np.concatenate([rows[t, :n] for t, n in enumerate(sizes)])
    if not np.array_equal(np.sort(all_rows), np.arange(num_rows)):
        raise AssertionError("a row belongs to two teachers, or to none")
    return rows, sizes
