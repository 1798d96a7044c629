"""Models for stages to read, without a fit."""

import json
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.generators.families.fit import Fit
from gristmill.generators.families.quality import Quality, QualitySpec
from gristmill.generators.images.classifier import Classifier, ClassifierSpec
from gristmill.records.readers.datasets import digest_table, images_table
from gristmill.records.readers.tables import Column, TableSchema
from gristmill.records.stores.local import LocalStore
from tests.docstrings import docstrings

FINISHES = ("stop", "length")
JUDGED = TableSchema((Column("text", "text"), Column("judge_score", "integer", low=1, high=5, nullable=True)))


@lru_cache
def classifier() -> str:
    """The folder of a classifier of 8 x 8 pixels that has learnt next to nothing; its classes are finishes."""
    columns = Column("image", "image", height=8, width=8, channels=1), Column("label", "category", categories=FINISHES)
    schema = TableSchema(columns)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8), np.uint8)
    table = schema.conform(images_table(pixels, np.array(FINISHES * 4)))
    store = LocalStore(tempfile.mkdtemp(prefix="classifier-"))
    trained_on = {"path": "x", "num_rows": 8, "digest": digest_table(table)}
    Fit(Classifier(ClassifierSpec(steps=1, batch=4, width=8), schema), table, trained_on, store, 0).run()
    return store.uri


@lru_cache
def encoder() -> str:
    """The folder of a sentence encoder with one small layer, that has learnt nothing: fast, and a real transformer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,:{}\"'"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "mill", "of", "grain", "wheel", "list", "number"]
    vocabulary = {word: at for at, word in enumerate([*words, *letters, *(f"##{letter}" for letter in letters)])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    folder = Path(tempfile.mkdtemp(prefix="encoder-"))
    tokenizer.save(str(folder / "tokenizer.json"))
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=80,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        BertModel(config).save_pretrained(folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 66}))
    return str(folder)


def judged(num: int = 1000) -> pa.Table:
    """Real docstrings, scored 4 or 5, and as many others with their words shuffled, scored 1 to 3; each is there once.

    Both sides have white space made plain and the same single words, so that only their order tells them apart.
    """
    random = np.random.default_rng(0)
    texts = [" ".join(text.split()) for text in docstrings()[: 2 * num]]
    rows = []
    for number, text in enumerate(texts):
        words = text.split()
        if is_good := number % 2 == 0:
            rows.append({"text": text, "judge_score": int(random.integers(4, 6))})
        else:
            shuffled = " ".join(words[at] for at in random.permutation(len(words)))
            rows.append({"text": shuffled, "judge_score": int(random.integers(1, 4))})
        assert is_good == (rows[-1]["judge_score"] >= 4)
    return JUDGED.conform(pa.Table.from_pylist(rows))


def fit_of(table: pa.Table, folder: str, seed: int = 0, **keys: Any) -> Fit:
    """The fit of a quality classifier to judged rows, not yet run."""
    spec = QualitySpec(**{"threshold": 4, **keys})
    trained_on = {"path": "x", "num_rows": table.num_rows, "digest": digest_table(table)}
    return Fit(Quality(spec, JUDGED), table, trained_on, LocalStore(folder), seed)


@lru_cache
def quality() -> str:
    """The folder of a quality classifier."""
    folder = tempfile.mkdtemp(prefix="quality-")
    fit_of(judged(400), folder, bits=14).run()
    return folder
