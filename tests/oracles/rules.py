"""Verdicts of the quality rules on real documents beside datatrove's own filters, with spaCy's words."""

from typing import Any

import pyarrow as pa

from gristmill.stages.filters.rules import Rules, RulesSpec
from tests.oracles.real_texts import real_texts


def passes(texts: list[str], **table: Any) -> list[bool]:
    stage = Rules(RulesSpec(**table))
    stage.open()
    batch = pa.RecordBatch.from_pydict({"text": pa.array(texts), "reject": pa.nulls(len(texts), pa.string())})
    return [reason is None for reason in stage.run(batch).column("reject").to_pylist()]


def bench() -> list[dict[str, Any]]:
    from datatrove.data import Document
    from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter

    texts, rows = real_texts(), list[dict[str, Any]]()
    filters = {
        "gopher_quality": GopherQualityFilter(),
        "gopher_repetition": GopherRepetitionFilter(),
        "fineweb": FineWebQualityFilter(),
    }
    for name, peer in filters.items():
        theirs = [peer.filter(Document(text=text, id="")) is True for text in texts]
        for words in ("datatrove", "spaces"):
            ours = passes(texts, sets=(name,), words=words)
            same = sum(a == b for a, b in zip(ours, theirs))
            rows.append(
                {
                    "what": f'rules, {name}, words = "{words}": verdicts that agree on {len(texts):,} documents',
                    "value": f"{same:,}; {sum(ours):,} pass",
                    "peer": f"datatrove: {sum(theirs):,} pass",
                    "ratio": same / len(texts),
                    "target": ">= 0.995" if words == "datatrove" else "",
                }
            )
    return rows
