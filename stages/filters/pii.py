"""Finds personal data and secrets: e-mail addresses, phone numbers, cards, bank accounts, IP addresses, keys.

The findings state kinds and places, never the values. Stages never change a text, so a row either is rejected, or a
later step masks it by the spans.
"""

from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import pyarrow as pa

from gristmill.records.errors import UserError
from gristmill.records.spec import later
from gristmill.stages.contract import Findings, Stage
from gristmill.stages.filters.pii_finders import KINDS, Kind, find
from gristmill.stages.further import further_columns, with_further

SPAN = pa.struct([("kind", pa.string()), ("start", pa.int32()), ("end", pa.int32())])
PACKAGES = {"phone": ("phonenumbers", "phonenumbers"), "secret": ("detect_secrets", "detect-secrets")}


@dataclass(frozen=True)
class PiiSpec:
    """Keys of the stage `pii`."""

    column: str = "text"  # Column with the text.
    kinds: tuple[Kind, ...] = KINDS  # Kinds to look for: "secret", "card", "iban", "email", "phone" and "ip".
    action: Literal["reject", "find"] = "reject"  # "reject" rejects a row with findings; "find" only adds the findings.
    # ISO 3166 codes of the countries whose phone numbers count without a + and country code too.
    regions: tuple[str, ...] = ("US", "GB")
    # Whether values reserved for documentation count too: example.com, private IP addresses, test cards, 555-0100.
    reserved: bool = False
    # Further columns with text that are searched; by default the model's `reasoning`, where rows have it. What only
    # stands there is rejected as REASON_in_COLUMN.
    also: tuple[str, ...] | None = later(None)

    def __post_init__(self) -> None:
        if not self.kinds:
            raise ValueError(f"kinds must name at least one of {', '.join(KINDS)}")
        for region in self.regions:
            if len(region) != 2 or not region.isascii() or not region.isupper():
                raise ValueError(f"regions are ISO 3166 codes such as 'US', not '{region}'")
        if self.also and self.action == "find":
            raise ValueError('also goes with action = "reject": with "find", name a second stage for the other column')


class Pii(Stage):
    """Adds `pii_kinds` (the kinds, gravest first) and `pii_spans` (kind, start and end in characters of the text).

    With action "reject", the reason is the gravest kind: "pii:secret", "pii:card", "pii:iban", "pii:email", "pii:phone"
    or "pii:ip"; the spans are then of the first column with findings, and what only stands in the reasoning is e.g.
    "pii:email_in_reasoning". With action "find", only `column` is searched: name a second stage for another column.
    """

    kind: ClassVar[str] = "pii"
    Spec: ClassVar[type] = PiiSpec
    spec: PiiSpec

    def columns(self) -> list[pa.Field]:
        return [
            pa.field(f"{self.name}_kinds", pa.list_(pa.string())),
            pa.field(f"{self.name}_spans", pa.list_(SPAN)),
        ]

    def reads(self) -> list[str]:
        return [self.spec.column, *(self.spec.also or ())]

    def identity(self) -> dict[str, Any]:
        versions = {package: version(package) for kind, (_, package) in PACKAGES.items() if kind in self.spec.kinds}
        return {**super().identity(), **versions}

    def check(self) -> None:
        for kind, (module, package) in PACKAGES.items():
            if kind in self.spec.kinds and find_spec(module) is None:
                raise UserError(f"{self.name}: package {package} is missing; pip install {package}")
        if "phone" in self.spec.kinds:
            from phonenumbers import SUPPORTED_REGIONS

            for region in self.spec.regions:
                if region not in SUPPORTED_REGIONS:
                    raise UserError(f"{self.name}: regions: package phonenumbers has no region '{region}'")

    def find(self, rows: pa.RecordBatch) -> Findings:
        further = []
        if self.spec.action == "reject":
            further = further_columns(self.spec.also, self.spec.column, rows.schema.names)
        return with_further(rows, self._find_in(rows, self.spec.column), further, partial(self._find_in, rows))

    def _find_in(self, rows: pa.RecordBatch, column: str) -> Findings:
        spec = self.spec
        texts = rows.column(column).to_pylist()
        matches = [find(text, spec.kinds, spec.reserved, spec.regions) if text else [] for text in texts]
        kinds = [[kind for kind in KINDS if any(kind == match[0] for match in row)] for row in matches]
        spans = [[{"kind": kind, "start": start, "end": end} for kind, start, end in row] for row in matches]
        columns = (pa.array(kinds, pa.list_(pa.string())), pa.array(spans, pa.list_(SPAN)))
        reasons = [row[0] if row and spec.action == "reject" else None for row in kinds]
        return Findings(dict(zip([f.name for f in self.columns()], columns)), pa.array(reasons, pa.string()))
