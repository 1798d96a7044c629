"""`kind = "diffusers"`: text prompts to images with any text-to-image pipeline of the package diffusers, for GPUs.

Each row's noise comes from its own generator, seeded on the CPU by the row's seed, and all batches have the same size.
So a row depends only on its prompt, its seed and its place, as with fitted models.
"""

import asyncio
import inspect
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pyarrow as pa

from gristmill.engines import models
from gristmill.engines.errors import AskRefused
from gristmill.engines.needs import Needs
from gristmill.generators.contract import GeneratedRow, Generator, fields_of, fill
from gristmill.generators.text.contract import Template
from gristmill.records.errors import UserError
from gristmill.records.extras import check_installed
from gristmill.records.schema import ASK, IMAGE, REJECT
from gristmill.records.spec import literals, nearest

OURS = frozenset({"prompt", "generator", "output_type", "num_images_per_prompt", "return_dict", "latents"})


@dataclass(frozen=True)
class DiffusersSpec:
    """Settings of `diffusers`."""

    model: str  # folder with model_index.json, or hub id (org/name or org/name@revision)
    name: str | None = None  # value of the `model` column; default: the last part of `model`
    template: str = "{text}"  # prompt; `{column}` stands for a column of the source
    # arguments of the pipeline's call: num_inference_steps, guidance_scale, height, width, ...
    settings: dict[str, Any] = field(default_factory=dict)
    dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"  # number format of the weights
    variant: str | None = None  # variant of the weight files, e.g. "fp16"
    batch: int = 4  # prompts in a call of the pipeline
    device: str = "cuda"  # device: "cuda", or "cpu" (slow)
    num_cpus: float = 1.0  # CPUs of a replica
    num_gpus: float | None = None  # GPUs of a replica; default: 1 unless device = "cpu"
    memory_gb: float = 0.0  # memory of a replica in GB

    def __post_init__(self) -> None:
        Template(self.template)
        if self.batch < 1:
            raise ValueError("batch must be at least 1")
        for key in sorted(OURS & set(self.settings)):
            raise ValueError(f"settings.{key} is set by gristmill")


class Diffusers(Generator):
    """A pipeline in each replica, which processes a batch of prompts at a time."""

    kind: ClassVar[str] = "diffusers"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = DiffusersSpec

    def __init__(self, spec: DiffusersSpec) -> None:
        self.spec = spec
        self._template = Template(spec.template)
        self._pipeline: Any = None
        self._lock = asyncio.Lock()  # a pipeline makes one batch at a time
        self._num_rows = 0

    @property
    def payload(self) -> list[pa.Field]:
        return [pa.field("prompt", pa.string()), pa.field("image", IMAGE)]

    @property
    def model(self) -> str | None:
        return self.spec.name or self.spec.model.rstrip("/").rpartition("/")[2]

    @property
    def needs(self) -> Needs:
        num_gpus = self.spec.num_gpus if self.spec.num_gpus is not None else float(self.spec.device != "cpu")
        return Needs(self.spec.num_cpus, num_gpus, self.spec.memory_gb)

    def fields_read(self) -> list[str]:
        return list(self._template.names)

    def identity(self) -> dict[str, Any]:
        changing = "template", "settings", "dtype", "variant", "batch"
        return {
            **super().identity(),
            "model": {"": models.digest(self.spec.model)},
            **{k: v for k, v in literals(self.spec).items() if k in changing},
        }

    def check(self) -> None:
        check_installed("images", "torch", "diffusers", "transformers")
        if models.where(self.spec.model) not in ("folder", "hub"):
            raise UserError(f"generator.model {self.spec.model}: give a folder or a hub id")
        models.check(self.spec.model)

    @property
    def progress(self) -> tuple[int, int]:
        return self._num_rows, 0

    def open(self) -> None:
        import torch
        from diffusers import AutoPipelineForText2Image

        self.check()
        pipeline = AutoPipelineForText2Image.from_pretrained(
            models.resolve(self.spec.model),
            revision=models.revision_of(self.spec.model),
            variant=self.spec.variant,
            torch_dtype=getattr(torch, self.spec.dtype),
            use_safetensors=True,  # never a pickle
        )
        parameters = inspect.signature(pipeline.__call__).parameters
        for key in self.spec.settings:
            if key not in parameters:
                raise UserError(
                    f"generator.settings: the pipeline takes no '{key}'{nearest(key, set(parameters) - OURS)}"
                )
        pipeline.set_progress_bar_config(disable=True)
        self._pipeline = pipeline.to(self.spec.device)

    def close(self) -> None:
        self._pipeline = None

    async def make(self, asks: pa.RecordBatch) -> pa.RecordBatch:
        dead = asks.column(REJECT.name).is_valid().to_pylist()
        texts, seeds = asks.column(ASK.name).to_pylist(), asks.column("seed").to_pylist()
        numbers = asks.column("row").to_pylist()
        rows_or_reasons = [None if is_dead else self._row_of_prompt(text) for is_dead, text in zip(dead, texts)]
        parts: dict[int, list[int]] = {}
        for row, one in enumerate(rows_or_reasons):
            if one is not None and one.reason is None:
                parts.setdefault(numbers[row] // self.spec.batch, []).append(row)
        for rows in parts.values():
            prompts, batch_seeds = [""] * self.spec.batch, [0] * self.spec.batch
            for row in rows:
                place = numbers[row] % self.spec.batch
                prompts[place], batch_seeds[place] = rows_or_reasons[row].payload["prompt"], seeds[row]  # type: ignore[union-attr]
            async with self._lock:
                images, flags = await asyncio.to_thread(self._batch, prompts, batch_seeds)
            for row in rows:
                place = numbers[row] % self.spec.batch
                one = rows_or_reasons[row]
                assert one is not None
                one.finish = "stop"
                if flags[place]:
                    rows_or_reasons[row] = GeneratedRow(reason="unsafe")  # as the pipeline's own checker says
                else:
                    one.payload["image"] = {"bytes": images[place], "path": None}
                self._num_rows += 1
        return fill(asks, self.payload, rows_or_reasons)

    def _row_of_prompt(self, text: str | None) -> GeneratedRow:
        """The prompt of an ask, or the reason why there is none."""
        fields = fields_of(text)
        if fields is None:
            return GeneratedRow(reason="malformed_ask")
        try:
            return GeneratedRow({"prompt": self._template.render(fields)})
        except AskRefused as refused:
            return GeneratedRow(reason=refused.reason)

    def _batch(self, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[list[bytes], Sequence[bool]]:
        """PNG bytes of each prompt's image, and whether the pipeline's safety checker has blackened it."""
        import torch

        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        with torch.inference_mode():
            answer = self._pipeline(prompt=list(prompts), generator=generators, output_type="pil", **self.spec.settings)
        files = []
        for image in answer.images:
            sink = io.BytesIO()
            image.save(sink, "PNG")
            files.append(sink.getvalue())
        return files, getattr(answer, "nsfw_content_detected", None) or [False] * len(files)
