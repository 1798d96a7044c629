"""`gristmill pack URI --to URI`: the release of a run (jobs/release/run.py) or of a mixture (jobs/release/mixture).

A release holds the rows in globally shuffled shards of a stated size, a dataset card and Croissant metadata.
"""

from gristmill.jobs.recipes.toml_file import TomlSource
from gristmill.jobs.release.facts import load_facts
from gristmill.jobs.release.formats import ROWS
from gristmill.jobs.release.mixture.pack import pack_mixture
from gristmill.jobs.release.options import PackOptions
from gristmill.jobs.release.run import pack_run
from gristmill.jobs.release.takedown.facts import log_matches
from gristmill.jobs.release.takedown.listing import read_listing
from gristmill.jobs.release.takedown.trace import Takedown
from gristmill.jobs.release.target import release_target
from gristmill.jobs.results import Result
from gristmill.records.shipped import shipped_file
from gristmill.records.stores.opening import open_store

DEFAULTS = PackOptions()


def command(
    uri: str,
    to: str,
    shard_mb: int = 256,
    seed: int | None = None,
    dry_run: bool = False,
    format_name: str = ROWS,
    facts: str | None = None,
    without: str | None = None,
    is_public: bool = False,
    without_reasoning: bool = False,
) -> int:
    """`gristmill pack`; see `pack`. With `dry_run`, count everything and write nothing."""
    _pack(uri, to, PackOptions(shard_mb, seed, format_name, facts, without, is_public, without_reasoning, dry_run))
    return 0


def pack(source: TomlSource, to: str, options: PackOptions = DEFAULTS) -> Result:
    """Write the release of a run, or of a mixture (a TOML file or its tables).

    Raises UserError for a run that has not ended, for a mixture that its policy refuses, and for a format that does
    not fit the columns.
    """
    num_rows = _pack(source, to, options)
    return Result(open_store(to).uri, "complete", {"rows": num_rows}, row_names={"rows": "train-"})


def _pack(source: TomlSource, to: str, options: PackOptions) -> int:
    """Pack a run or a mixture; returns the rows of the release."""
    facts = load_facts(options.facts)
    takedown = Takedown(read_listing(options.without)) if options.without else None
    with release_target(to, options.is_public) as target:
        if isinstance(source, str) and not (source.endswith(".toml") or shipped_file(source)):
            num_rows = pack_run(source, target, options, facts, takedown)
        else:
            num_rows = pack_mixture(source, target, options, facts, takedown)
    if takedown and options.without:
        log_matches(takedown, options.without)
    return num_rows
