"""Log-probabilities of texts under a causal language model that stays as it is; loaded when it is first asked."""

from collections.abc import Sequence
from typing import Any

from gristmill.engines import models
from gristmill.records.errors import UserError

MAX_MODEL_TOKENS = 512  # of a text; the rest of it is not read


class Perplexity:
    """`model`: a folder, hub id, s3:// or package:smollm2, as a teacher's. Callable on texts."""

    def __init__(self, model: str) -> None:
        models.check(model)
        self.model = model
        self._loaded: tuple[Any, Any] | None = None

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            from transformers import AutoModelForCausalLM, AutoTokenizer
            from transformers.utils import logging

            logging.disable_progress_bar()
            folder, revision = models.resolve(self.model), models.split_revision(self.model)[1]
            more = {"revision": revision} if revision and models.where(self.model) == "hub" else {}
            try:
                tokenizer = AutoTokenizer.from_pretrained(folder, **more)
                network = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", **more).eval()
            except (OSError, ValueError, KeyError) as error:
                line = (str(error).splitlines() or [type(error).__name__])[0]
                raise UserError(f"--perplexity-model {self.model}: no causal language model there ({line})") from None
            self._loaded = tokenizer, network
        return self._loaded

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """Natural, one for each token after the first (or after the model's begin-of-text token, if it has one).

        One text at a time, so that no text's numbers depend on another's.
        """
        import torch

        tokenizer, network = self._load()
        most = min(MAX_MODEL_TOKENS, getattr(network.config, "max_position_embeddings", None) or MAX_MODEL_TOKENS)
        begin = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
        found: list[list[float]] = []
        for text in texts:
            codes = (begin + tokenizer(text, add_special_tokens=False)["input_ids"])[:most]
            if len(codes) < 2:
                found.append([])
                continue
            with torch.inference_mode():
                logits = network(torch.tensor([codes])).logits[0, :-1].double()
            shares = logits.log_softmax(1).gather(1, torch.tensor(codes[1:])[:, None])
            found.append([min(0.0, float(v)) for v in shares[:, 0]])
        return found
