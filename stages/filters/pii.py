"""Finds what tells of people or opens doors: e-mail addresses, phone numbers, cards, accounts, IP addresses, secrets.

The findings say what stands where and never repeat it. Text is not changed: stages never do (a row is what its
generator made), so what must not go out is rejected, or masked by whoever reads the spans.
"""

from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import pyarrow as pa

from gristmill.records.errors import UserError
from gristmill.stages.contract import Findings, Stage
from gristmill.stages.filters.pii_finders import KINDS, Kind, find

SPAN = pa.struct([("kind", pa.string()), ("start", pa.int32()), ("end", pa.int32())])
PACKAGES = {"phone": ("phonenumbers", "phonenumbers"), "secret": ("detect_secrets", "detect-secrets")}


@dataclass(frozen=True)
class PiiSpec:
    """`kinds` to look for. `regions` (ISO 3166 codes) whose phone numbers count without a + too. With `reserved`,
    what documentation uses counts too: example.com, private IP addresses, test cards, AKIA...EXAMPLE, 555-0100."""

    column: str = "text"
    kinds: tuple[Kind, ...] = KINDS
    action: Literal["reject", "find"] = "reject"
    regions: tuple[str, ...] = ("US", "GB")
    reserved: bool = False

    def __post_init__(self) -> None:
        if not self.kinds:
            raise ValueError(f"kinds must name at least one of {', '.join(KINDS)}")
        for region in self.regions:
            if len(region) != 2 or not region.isascii() or not region.isupper():
                raise ValueError(f"regions are ISO 3166 codes such as 'US', not '{region}'")


class Pii(Stage):
    """Findings: `pii_kinds` (what was found, the gravest first) and `pii_spans` (kind, start and end of each in
    characters of the text). With action "reject" a row is rejected for the gravest: "pii:secret", "pii:card",
    "pii:iban", "pii:email", "pii:phone", "pii:ip"."""

    kind: ClassVar[str] = "pii"
    Spec: ClassVar[type] = PiiSpec
    spec: PiiSpec

    def columns(self) -> list[pa.Field]:
        return [
            pa.field(f"{self.name}_kinds", pa.list_(pa.string())),
            pa.field(f"{self.name}_spans", pa.list_(SPAN)),
        ]

    def reads(self) -> list[str]:
        return [self.spec.column]

    def identity(self) -> dict[str, Any]:
        return {package: version(package) for kind, (_, package) in PACKAGES.items() if kind in self.spec.kinds}

    def check(self) -> None:
        for kind, (module, package) in PACKAGES.items():
            if kind in self.spec.kinds and find_spec(module) is None:
                raise UserError(f"{self.name}: package {package} is missing; pip install {package}")
        if "phone" in self.spec.kinds:
            from phonenumbers import SUPPORTED_REGIONS

            for region in self.spec.regions:
                if region not in SUPPORTED_REGIONS:
                    raise UserError(f"{self.name}: regions: no phone numbers are known of '{region}'")

    def find(self, rows: pa.RecordBatch) -> Findings:
        spec = self.spec
        texts = rows.column(spec.column).to_pylist()
        found = [find(text, spec.kinds, spec.reserved, spec.regions) if text else [] for text in texts]
        kinds = [[kind for kind in KINDS if any(kind == f[0] for f in spans)] for spans in found]
        spans = [[{"kind": kind, "start": start, "end": end} for kind, start, end in row] for row in found]
        columns = (pa.array(kinds, pa.list_(pa.string())), pa.array(spans, pa.list_(SPAN)))
        reasons = [row[0] if row and spec.action == "reject" else None for row in kinds]
        return Findings(dict(zip([f.name for f in self.columns()], columns)), pa.array(reasons, pa.string()))
