"""What is asked of a pack beside its rows and its place."""

from dataclasses import dataclass

from gristmill.jobs.recipes.toml_file import TomlSource
from gristmill.jobs.release.formats import MESSAGES, ROWS
from gristmill.records.errors import UserError


@dataclass(frozen=True)
class PackOptions:
    """Options of `gristmill pack`. Raises UserError for a value that none can have."""

    shard_mb: int = 256  # size of a shard
    seed: int | None = None  # of the shuffle; None: 0, or that of the mixture
    format_name: str = ROWS  # of jobs/release/formats.py
    facts: TomlSource | None = None  # its `[release]` and `[source]` replace keys of the recipe or mixture
    without: str | None = None  # a file of row ids, source ids or source digests
    is_public: bool = False  # whether everyone may read a release at hf://
    without_reasoning: bool = False  # whether messages leave out the model's reasoning
    is_dry_run: bool = False  # count everything and write nothing

    def __post_init__(self) -> None:
        if self.shard_mb < 1:
            raise UserError("--shard-mb must be at least 1")
        if self.without_reasoning and self.format_name != MESSAGES:
            raise UserError(
                "--without-reasoning goes with --format messages; rows keep their columns, and other formats have none "
                "with the reasoning"
            )

    @property
    def identity(self) -> dict[str, object]:
        """What decides the rows of a release beside its columns."""
        return {"format": self.format_name, **({"without_reasoning": True} if self.without_reasoning else {})}
