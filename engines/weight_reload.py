"""An engine that outlives the models it serves: the weights of the next model are loaded while it runs."""

import asyncio
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gristmill.engines.errors import AskRefused, EngineDead
from gristmill.engines.served import ModelSpec
from gristmill.engines.throttle import throttle_of
from gristmill.engines.vllm import Engine
from gristmill.records.errors import UserError

WEIGHTS = ".safetensors"


class ReloadingEngine:
    """Serves one model at a time, the model of each call. All methods are called on one event loop."""

    def __init__(self, spec: ModelSpec, max_retries: int) -> None:
        """`spec` states the resources of the engine; each call names its model and its arguments."""
        self.spec, self.max_retries = spec, max_retries
        self.num_waiting = 0
        self._engine: Engine | None = None
        self._shape = self._model = ""
        self._lock = asyncio.Lock()

    async def texts(
        self,
        files: Mapping[str, bytes],
        args: Mapping[str, Any],
        prompts: Sequence[str],
        seeds: Sequence[int],
        sampling: Mapping[str, Any],
    ) -> list[str]:
        """The text that the model in `files` (as transformers reads them) writes after each prompt.

        An engine that dies is restarted up to `max_retries` times. Raises UserError when it refuses an ask.
        """
        self.num_waiting += 1
        try:
            async with self._lock:
                for retries_left in range(self.max_retries, -1, -1):
                    try:
                        engine = await self._serve(files, args)
                        jobs = [engine.chat(p, sampling, s) for p, s in zip(prompts, seeds)]
                        throttle = throttle_of(engine, self.spec.max_in_flight)
                        return [reply.text for reply in await throttle.gather(jobs) if reply is not None]
                    except EngineDead:
                        self.close()
                        if not retries_left:
                            raise
                    except AskRefused as refused:
                        raise UserError(f"the engine refuses an ask: {refused.reason} ({refused.detail})") from None
                raise AssertionError("unreachable")
        finally:
            self.num_waiting -= 1

    async def _serve(self, files: Mapping[str, bytes], args: Mapping[str, Any]) -> Engine:
        """An engine with these weights: the running engine, if config and tokenizer are the same as before."""
        other_files = {name: data for name, data in files.items() if not name.endswith(WEIGHTS)}
        shape, model = _digest(other_files, repr(sorted(args.items()))), _digest(files)
        if self._engine is not None and (shape, model) == (self._shape, self._model):
            return self._engine
        with tempfile.TemporaryDirectory() as folder:
            for name, data in files.items():
                (Path(folder) / name).write_bytes(data)
            if self._engine is not None and shape == self._shape:
                await self._engine.load(folder)
            else:
                self.close()
                self._engine = replace(self.spec, model=folder, engine={**self.spec.engine, **args}).open_engine({})
        self._shape, self._model = shape, model
        return self._engine

    def close(self) -> None:
        engine, self._engine = self._engine, None
        self._shape = self._model = ""
        if engine is not None:
            engine.close()


def _digest(files: Mapping[str, bytes], extra: str = "") -> str:
    whole = hashlib.blake2b(extra.encode(), digest_size=16)
    for name in sorted(files):
        whole.update(name.encode() + b"\0" + hashlib.blake2b(files[name], digest_size=16).digest())
    return whole.hexdigest()
