"""The facts of a release for people and catalogues: title, licence, languages, tasks, citation, date.

They come from `[release]` of a recipe or a mixture and from `license` of its sources. A file, `pack --facts`, replaces
single keys. Nothing here changes a row, and nothing depends on the clock: packing twice gives the same bytes, but for
the salt in the takedown.json of `--without`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from gristmill.jobs.recipes.toml_file import TomlSource, label_of, load_table
from gristmill.jobs.release.languages import language_tag
from gristmill.records.licenses import OTHER, UNKNOWN, license_id
from gristmill.records.output.manifest import Manifest
from gristmill.records.spec import build, nearest

VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
BIBTEX = r"[{}\\]"  # signs that would end a value of BibTeX
WORD_BREAKS = r"\W+"
TASKS = frozenset(  # the task categories of the Hugging Face Hub
    """
    any-to-any audio-classification audio-text-to-text audio-to-audio automatic-speech-recognition depth-estimation
    document-question-answering feature-extraction fill-mask graph-ml image-classification image-feature-extraction
    image-segmentation image-text-to-text image-to-3d image-to-image image-to-text image-to-video keypoint-detection
    mask-generation multiple-choice object-detection other question-answering reinforcement-learning robotics
    sentence-similarity summarization table-question-answering table-to-text tabular-classification
    tabular-regression tabular-to-text text-classification text-generation text-ranking text-retrieval text-to-3d
    text-to-audio text-to-image text-to-speech text-to-video text2text-generation time-series-forecasting
    token-classification translation unconditional-image-generation video-classification video-text-to-text
    visual-document-retrieval visual-question-answering voice-activity-detection zero-shot-classification
    zero-shot-image-classification zero-shot-object-detection
    """.split()
)


def _as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return ((value,) if value else ()) if isinstance(value, str) else value


@dataclass(frozen=True)
class ReleaseSpec:
    """`[release]`: facts for the card and the Croissant metadata of a release. They never change a row."""

    title: str = ""  # Title of the release; default: `name` of the recipe or mixture.
    # Licence of the release, an id of SPDX or of the Hub, or a list of them; default: "unknown".
    license: str | tuple[str, ...] = ()
    license_link: str = ""  # Address of the text of the licence; required for license = "other".
    languages: tuple[str, ...] = ()  # Languages of the rows as tags of BCP 47: "en", "pt-BR".
    task: str | tuple[str, ...] = ()  # Task category of the Hub, or a list of them: "text-generation".
    cite: str = ""  # How to cite the release: BibTeX or plain text; default: made from title, version and date.
    contact: str = ""  # Whom to ask: an address of mail or web, or a name.
    homepage: str = ""  # Web page of the release.
    version: str = "1.0.0"  # Version of the release as major.minor.patch.
    date: str = ""  # Date of publication, "2026-01-31"; default: the day on which the run ended.

    def __post_init__(self) -> None:
        for name in _as_tuple(self.license):
            license_id(name)
        if OTHER in self.licenses and not self.license_link:
            raise ValueError("license = 'other' needs license_link, the address of its text")
        for tag in self.languages:
            language_tag(tag)
        for task in self.tasks:
            if task not in TASKS:
                raise ValueError(f"task: '{task}' is no task category of the Hub{nearest(task, TASKS)}")
        if not VERSION.fullmatch(self.version):
            raise ValueError(f"version must be major.minor.patch such as '1.0.0', not '{self.version}'")
        if self.date:
            try:
                date.fromisoformat(self.date)
            except ValueError:
                raise ValueError(f"date must be a day such as '2026-01-31', not '{self.date}'") from None
        if self.homepage and not re.fullmatch(r"https?://\S+", self.homepage):
            raise ValueError(f"homepage must begin with https:// or http://, not '{self.homepage}'")

    @property
    def licenses(self) -> tuple[str, ...]:
        return tuple(license_id(name) for name in _as_tuple(self.license))

    @property
    def tasks(self) -> tuple[str, ...]:
        return _as_tuple(self.task)


@dataclass(frozen=True)
class SourceFacts:
    """`[source]` of a facts file."""

    license: str | None = None  # Licence of the source of the run.

    def __post_init__(self) -> None:
        if self.license is not None:
            license_id(self.license)


@dataclass(frozen=True)
class FactsFile:
    """The file of `pack --facts`."""

    release: dict[str, Any] = field(default_factory=dict)  # `[release]`: keys that replace those of the recipe.
    source: SourceFacts = field(default_factory=SourceFacts)


@dataclass(frozen=True)
class Facts:
    """What card and Croissant metadata state about a release, beside its columns and counts."""

    name: str
    description: str
    fingerprint: str  # of the recipe or mixture
    keywords: tuple[str, ...]
    spec: ReleaseSpec
    date: str  # "2026-01-31"; empty where nothing states it
    sources: tuple[tuple[str, str], ...]  # (place, licence)
    format_task: str | None = None  # the task that the format of the rows is for

    @property
    def title(self) -> str:
        return self.spec.title or self.name

    @property
    def licenses(self) -> tuple[str, ...]:
        return self.spec.licenses or (UNKNOWN,)

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(language_tag(tag) for tag in self.spec.languages))

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.spec.tasks or ((self.format_task,) if self.format_task else ())

    @property
    def citation(self) -> str:
        """The text of `[release]`, else BibTeX made from title, version, date and homepage."""
        if self.spec.cite:
            return self.spec.cite
        entries = {"title": self.title, "version": self.spec.version, "year": self.date[:4], "url": self.spec.homepage}
        lines = [f"  {key} = {{{re.sub(BIBTEX, '', value)}}}," for key, value in entries.items() if value]
        return "\n".join([f"@misc{{{re.sub(WORD_BREAKS, '-', self.name).strip('-') or 'release'},", *lines, "}"])


def missing_facts(facts: Facts) -> str:
    """A line on what a catalogue needs and nothing states; empty where nothing is missing."""
    missing = [name for name, value in (("license", facts.spec.licenses), ("date", facts.date)) if not value]
    return f"the card states no {' and no '.join(missing)}: see [release], or pack with --facts" if missing else ""


def load_facts(source: TomlSource | None) -> FactsFile:
    """The facts file, empty for None. Raises UserError for an unknown key."""
    return FactsFile() if source is None else build(FactsFile, load_table(source), label_of(source))


def release_spec(table: Mapping[str, Any], file: FactsFile) -> ReleaseSpec:
    """`[release]` with the keys of the facts file in place of its own. Raises UserError for a value that is refused."""
    return build(ReleaseSpec, {**table, **file.release}, "release")


def ended_on(manifest: Manifest) -> str:
    """The day (UTC) on which the last start of a run ended; empty for a run without a start."""
    if not manifest.starts:
        return ""
    last = manifest.starts[-1]
    ended = datetime.fromisoformat(last["started"]) + timedelta(seconds=last.get("wall_s", 0.0))
    return ended.astimezone(UTC).date().isoformat()
