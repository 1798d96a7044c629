"""study.json: the study, its end state, and the fingerprint under both."""

from typing import Any, Literal, NotRequired, TypedDict

from gristmill.jobs.study.spec import StudySpec
from gristmill.records.errors import UserError
from gristmill.records.ids import fingerprint
from gristmill.records.masking.masks import covered, holds_mask
from gristmill.records.output.formats import parse
from gristmill.records.shapes import check_shape
from gristmill.records.spec import build, literals

NAME = "study.json"


class _Worst(TypedDict):
    """The row of the summary with the largest |z|."""

    cell: str
    measure: str
    generation: int
    z: float
    num_tested: int


class _Ended(TypedDict):
    state: Literal["complete", "failed", "stopped"]
    num_units: int
    num_done: int
    failed: dict[str, str]
    work_s: NotRequired[float]
    wall_s: NotRequired[float]
    worst: _Worst | None


class _Study(TypedDict):
    name: str
    show: NotRequired[list[str]]


class _StudyFile(TypedDict):
    format: int
    fingerprint: str
    study: _Study
    versions: NotRequired[dict[str, str]]
    chains: NotRequired[dict[str, int]]
    ended: NotRequired[_Ended]


def read_study(data: bytes, where: str) -> dict[str, Any]:
    """The content of study.json. Raises UserError, which names the file `where`, if it cannot be read."""
    study_file = parse(data, NAME, where)
    check_shape(study_file, _StudyFile, where)
    return study_file


def recorded_spec(study_file: dict[str, Any], where: str) -> StudySpec:
    """The study that the file records. Raises UserError unless it is the study of the file's fingerprint."""
    spec = build(StudySpec, study_file["study"], where)
    if identity(spec) != study_file["fingerprint"] and not holds_mask(study_file["study"]):
        raise UserError(f"{where} was altered: its study is not that of its fingerprint")
    for name, num in study_file.get("chains", {}).items():
        if not 1 <= num <= max(spec.chains, spec.laws.max_chains):
            raise UserError(f"{where} cannot be read: chains.{name} is {num}")
    return spec


def identity(spec: StudySpec) -> str:
    """Fingerprint of everything that decides the results, without placement and presentation."""
    table = literals(spec)
    placement = ("cluster", "work", "engines", "description", "show")
    return fingerprint(covered({k: v for k, v in table.items() if k not in placement}))
