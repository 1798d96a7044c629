"""Texts to blocks of token ids. From scratch the tokenizer is a byte-level BPE learned from the texts."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

START, END = "<s>", "</s>"
IGNORED = -100  # as a label: not learnt from


def learnt(texts: Sequence[str], size: int) -> Any:
    """A byte-level BPE tokenizer (Sennrich et al. 2016; Radford et al. 2019) of about `size` tokens, as transformers
    keeps it: START and END are its begin and end of text. The same texts give the same tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=START, eos_token=END, pad_token=END)


def start_of(tokenizer: Any) -> str:
    """The token that every block and every fresh sample begins with."""
    found = tokenizer.bos_token or tokenizer.eos_token
    if found is None:
        raise ValueError("the tokenizer has neither a begin nor an end of text")
    return str(found)


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, without any that the tokenizer adds on its own."""
    if not texts:
        return []
    return [list(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def rows_of(tokenizer: Any, texts: Sequence[str], length: int) -> np.ndarray:
    """int64 (texts, 1 + length): the start token and the first `length` of each text; IGNORED where it is shorter."""
    start = tokenizer.convert_tokens_to_ids(start_of(tokenizer))
    blocks = np.full((len(texts), 1 + length), IGNORED, np.int64)
    blocks[:, 0] = start
    for row, ids in enumerate(encode(tokenizer, texts)):
        blocks[row, 1 : 1 + len(ids[:length])] = ids[:length]
    return blocks


def blocks_of(tokenizer: Any, texts: Sequence[str], length: int) -> np.ndarray:
    """int64 (blocks, 1 + length): all texts in a line, an end token after each, cut into blocks behind start tokens.

    What is left over at the end is a block of its own if it is the only one, and left out otherwise.
    """
    start = tokenizer.convert_tokens_to_ids(start_of(tokenizer))
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    line = np.array([code for ids in encode(tokenizer, texts) for code in [*ids, *end]], np.int64)
    if len(line) < length:
        line = np.concatenate([line, np.full(length - len(line), IGNORED)])
    num = len(line) // length
    blocks = np.empty((num, 1 + length), np.int64)
    blocks[:, 0] = start
    blocks[:, 1:] = line[: num * length].reshape(num, length)
    return blocks


def pieces(tokenizer: Any, texts: Sequence[str], length: int) -> list[str]:
    """Texts cut into pieces of exactly `length` tokens, as texts again; what is left of each text is left out."""
    texts_of_pieces = []
    for ids in encode(tokenizer, texts):
        for at in range(0, len(ids) - length + 1, length):
            texts_of_pieces.append(tokenizer.decode(ids[at : at + length]))
    return texts_of_pieces


def files_of(tokenizer: Any) -> dict[str, bytes]:
    """tokenizer.json and tokenizer_config.json, as transformers and vLLM read them."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    config = json.loads(files["tokenizer_config.json"])
    config.pop("name_or_path", None)  # where it was read from is nobody's business
    files["tokenizer_config.json"] = json.dumps(config, indent=1, sort_keys=True).encode()
    return files


def from_files(files: dict[str, bytes]) -> Any:
    """The inverse of `files_of`."""
    import tempfile
    from pathlib import Path

    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        return AutoTokenizer.from_pretrained(folder)
