"""The diffusers adapter: what can be known without a GPU, and a tiny real pipeline where the package is installed."""

import asyncio
import io
import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from gristmill.generators.diffusers import Diffusers, DiffusersSpec
from gristmill.generators.registry import generator_class
from gristmill.records import extras
from gristmill.records.errors import UserError
from gristmill.records.spec import build
from tests.generators.canned.test_canned import asks, with_column


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (tmp_path / "unet" / "config.json").write_text("{}")
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    return tmp_path


def generator(folder: Path, **table: Any) -> Diffusers:
    assert generator_class("diffusers") is Diffusers
    return Diffusers(build(DiffusersSpec, {"model": str(folder), **table}, "generator"))


class Pipeline:
    """In place of a pipeline: an image is made of its prompt and its generator's first number."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, prompt: list[str], generator: list[Any], output_type: str, **settings: Any) -> Any:
        import torch

        assert output_type == "pil" and settings == {"num_inference_steps": 3}
        self.calls.append(prompt)
        images = []
        for text, own in zip(prompt, generator):
            level = int(torch.rand(1, generator=own) * 255)
            images.append(Image.fromarray(np.full((4, 4, 3), [level, len(text), 0], np.uint8)))
        return SimpleNamespace(images=images, nsfw_content_detected=["forbidden" in text for text in prompt])


def opened(folder: Path, **table: Any) -> tuple[Diffusers, Pipeline]:
    made = generator(folder, settings={"num_inference_steps": 3}, **table)
    made._pipeline = Pipeline()
    return made, made._pipeline


def test_rows_hang_on_prompt_seed_and_place(folder: Path) -> None:
    made, pipeline = opened(folder, template="A photo of {topic}.", batch=4)
    batch = asks(10)
    out = asyncio.run(made.make(batch))
    assert out.column("prompt").to_pylist()[3] == "A photo of topic 3."
    assert out.column("finish").to_pylist() == ["stop"] * 10 and out.column("reject").null_count == 10
    assert [len(call) for call in pipeline.calls] == [4, 4, 4]  # padded: a batch of another size may make other bits
    parts = [asyncio.run(made.make(batch.slice(i, 3))) for i in range(0, 10, 3)]
    assert pa.Table.from_batches(parts).equals(pa.Table.from_batches([out]))
    images = [row["bytes"] for row in out.column("image").to_pylist()]
    assert len(set(images)) == 10 and Image.open(io.BytesIO(images[0])).size == (4, 4)
    assert made.progress == (20, 0)


def test_bad_dead_and_unsafe_asks(folder: Path) -> None:
    made, _ = opened(folder, template="{topic}")
    batch = with_column(asks(5), "reject", [None, "source:gone", None, None, None])
    texts = [json.dumps({"topic": "a mill"}), "{}", "[]", "{}", json.dumps({"topic": "forbidden"})]
    out = asyncio.run(made.make(with_column(batch, "ask", texts))).to_pylist()
    assert [row["reject"] for row in out] == [
        *(None, "source:gone", "generator:malformed_ask", "generator:missing_field", "generator:unsafe")
    ]
    assert out[0]["image"]["bytes"] and all(row["image"] is None for row in out[1:])
    assert asyncio.run(made.make(asks(0))).num_rows == 0


def test_identity_covers_weights_in_their_folders_and_nothing_of_the_place(folder: Path, tmp_path: Path) -> None:
    plain = generator(folder).identity()
    assert generator(folder, device="cpu", num_gpus=0, memory_gb=9, name="x").identity() == plain
    for changes in ({"batch": 2}, {"dtype": "float16"}, {"settings": {"height": 64}}, {"template": "{topic}"}):
        assert generator(folder, **changes).identity() != plain
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"other")
    assert generator(folder).identity() != plain


def test_what_it_needs_and_refuses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = pickle.loads(pickle.dumps(generator(folder, template="{topic} by {painter}")))
    assert made.needs.num_gpus == 1 and made.needs.pooled and made.fields_read() == ["topic", "painter"]
    assert generator(folder, device="cpu").needs.num_gpus == 0 and made.model == folder.name
    for table, message in (
        ({"settings": {"generator": 1}}, "settings.generator is set by gristmill"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"template": "{"}, "template"),
        ({"dtype": "int8"}, "'int8' is not one of"),
    ):
        with pytest.raises(UserError, match=message):
            generator(folder, **table)
    find_spec = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "diffusers" else find_spec(name))
    with pytest.raises(UserError, match="package 'diffusers' is missing; install it with pip install"):
        made.check()


def test_a_tiny_real_pipeline(tmp_path: Path) -> None:
    """A random Stable Diffusion of a few thousand weights, saved and loaded as a user's would be."""
    pytest.importorskip("diffusers", reason="needs diffusers")
    import diffusers
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    words = ["<|startoftext|>", "<|endoftext|>", "a</w>", "mill</w>"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), model_max_length=8)
    config = CLIPTextConfig(
        vocab_size=4,
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        max_position_embeddings=8,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(config),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(tmp_path / "tiny", safe_serialization=True)
    table = {"device": "cpu", "dtype": "float32", "batch": 2, "settings": {"num_inference_steps": 2, "height": 16}}
    made = generator(tmp_path / "tiny", **table)
    made.check()
    made.open()
    out = asyncio.run(made.make(asks(3)))
    parts = pa.Table.from_batches([asyncio.run(made.make(asks(3).slice(n, 1))) for n in range(3)])
    assert out.column("reject").null_count == 3 and parts.equals(pa.Table.from_batches([out]))
    with pytest.raises(UserError, match="the pipeline takes no 'num_inference_step'.*num_inference_steps"):
        generator(tmp_path / "tiny", **{**table, "settings": {"num_inference_step": 2}}).open()
