"""The canned generator with faults on demand, for tests of pools and of the quarantine.

A recipe names it by `kind = "tests.canned_drills:CannedWithDrills"`.
"""

import asyncio
import os
from dataclasses import dataclass
from typing import ClassVar

from gristmill.engines.contract import ChatEngine
from gristmill.generators.canned.generator import Canned, CannedEngine, CannedSpec
from gristmill.records.spec import placement

KIND = "tests.canned_drills:CannedWithDrills"
EXIT_CODE = 13


@dataclass(frozen=True)
class DrillSpec(CannedSpec):
    """The keys of `canned`, and two faults. A fault changes no other row, so it bears no identity."""

    crash_on: str | None = placement(None)  # a prompt that contains this text kills the replica, as a poison ask does
    hang_on: str | None = placement(None)  # a prompt that contains this text is never answered

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.crash_on or self.hang_on) and not self.pooled:
            raise ValueError("crash_on and hang_on need a pool: set pooled = true")


class DrillEngine(CannedEngine):
    """Answers as `CannedEngine` does, but exits or hangs on the prompts that the spec names."""

    spec: DrillSpec

    def __init__(self, spec: DrillSpec, quotes: list[str]) -> None:
        super().__init__(spec, quotes)
        self.synchronous = self.synchronous and not spec.hang_on

    async def wait(self, prompt: str) -> None:
        if self.spec.crash_on and self.spec.crash_on in prompt:
            os._exit(EXIT_CODE)
        if self.spec.hang_on and self.spec.hang_on in prompt:
            await asyncio.Event().wait()
        await super().wait(prompt)


class CannedWithDrills(Canned):
    """`Canned` with a `DrillEngine`."""

    kind: ClassVar[str] = "canned"
    Spec: ClassVar[type] = DrillSpec
    spec: DrillSpec

    def open_engine(self) -> ChatEngine:
        return DrillEngine(self.spec, self.quotes())
