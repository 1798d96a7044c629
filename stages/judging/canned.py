"""A judge without a model: scores drawn from the seeds of the rows, to try a recipe on any machine."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.contract import FREE_TEXT, AnswerForm, Messages, Reply
from gristmill.engines.needs import Needs
from gristmill.engines.throttle import throttle_of
from gristmill.records.ids import mix_bits
from gristmill.stages.contract import Findings, Stage
from gristmill.stages.judging.judge import Judge
from gristmill.stages.judging.modes import MODES
from gristmill.stages.judging.spec import RubricSpec


class CannedScores:
    """An engine that answers with a score for each name of the schema, drawn from the seed of the call."""

    synchronous = True

    async def chat(
        self, prompt: Messages, sampling: Mapping[str, Any], seed: int, form: AnswerForm = FREE_TEXT
    ) -> Reply:
        scores = {}
        for at, (name, schema) in enumerate((form.json_schema or {})["properties"].items()):
            low, high = schema["minimum"], schema["maximum"]
            scores[name] = low + mix_bits(seed + at) % (high - low + 1)
        text = json.dumps(scores)
        return Reply(text, "stop", 1 + str(prompt).count(" ") * 4 // 3, 1 + text.count(" ") * 4 // 3)

    def check_user_turn(self) -> None:
        """A judge has no user turn."""

    async def facts(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        """There is nothing to free."""


class CannedJudge(Judge):
    """Adds the columns of a judge with scores that mean nothing: they are drawn from the seed of each row."""

    kind: ClassVar[str] = "canned_judge"
    Spec: ClassVar[type] = RubricSpec
    spec: RubricSpec  # type: ignore[assignment]

    def __init__(self, spec: RubricSpec, name: str | None = None) -> None:
        Stage.__init__(self, spec, name)
        self.sampling, self.mode = {}, MODES[spec.mode](spec)
        self.form = AnswerForm(self.mode.json_schema)
        self._engine, self._throttle, self._totals = None, throttle_of(None, 1), (0, 0)

    @property
    def needs(self) -> Needs | None:  # type: ignore[override]
        return None

    @property
    def is_paid(self) -> bool:
        return False

    @property
    def is_repeatable(self) -> bool:
        return True

    @property
    def engine_key(self) -> str | None:
        return None

    def identity(self) -> dict[str, Any]:
        return Stage.identity(self)

    def check(self) -> None:
        """There is no model to look for."""

    def open(self) -> None:
        self._engine = CannedScores()

    def find(self, rows: pa.RecordBatch) -> Findings:
        return asyncio.run(self.find_pooled(rows))
