"""Steps that only read what others have made: pack, and evaluate."""

from typing import Any

import pyarrow as pa

from gristmill.jobs.evaluate.command import REPORT, check_packages, evaluate, summary_table
from gristmill.jobs.evaluate.inputs import EvaluateArgs
from gristmill.jobs.flow.produce_step import ProduceStep
from gristmill.jobs.flow.step import Step, StepEnd
from gristmill.jobs.recipes.toml_file import load_table
from gristmill.jobs.release.command import pack
from gristmill.jobs.release.facts import load_facts
from gristmill.jobs.release.formats import FORMATS, ROWS, find_format
from gristmill.jobs.release.mixture.parts import CARD
from gristmill.jobs.release.mixture.spec import load_mixture
from gristmill.jobs.release.options import PackOptions
from gristmill.jobs.release.takedown.listing import read_listing
from gristmill.jobs.release.target import BEGUN
from gristmill.jobs.terminal.console import SafeConsole, open_console
from gristmill.records.errors import UserError
from gristmill.records.ids import fingerprint
from gristmill.records.masking.masks import covered
from gristmill.records.output.manifest import load as read_manifest
from gristmill.records.schema import INNER_COLUMNS, REJECT, release_columns
from gristmill.records.spec import literals, nearest, plain
from gristmill.records.stores.opening import open_store

# Flag of a step: name of the option of a pack.
PACK_OPTIONS = {name: name for name in ("shard_mb", "seed", "facts", "without", "without_reasoning")}
PACK_OPTIONS |= {"public": "is_public"}


class ReadingStep(Step):
    """A step whose output is made anew unless it is there as a whole: it keeps no state of its own."""

    marker: str  # the file that is written last
    _was_begun = False  # whether an earlier start has begun this step, with the same inputs

    def prepare(self) -> None:
        inputs = [[entry["key"], entry["identity"]] for entry in self.inputs()]
        self.fingerprint = fingerprint(covered([self.spec.verb, self.spec_literals(), inputs, self._other_run()]))
        self._was_begun = self.record.fingerprint == self.fingerprint
        if self.store.exists(self.marker) and self.record.fingerprint not in (None, self.fingerprint):
            raise UserError(
                f"{self.uri} was made of other inputs or with other flags; remove it, or choose another --out"
            )

    def spec_literals(self) -> Any:
        """What the flow file says of the step, with links as they are written."""
        return [self.spec.run, self.written, self.spec.flags]

    def _other_run(self) -> Any:
        """The run outside the flow that the step reads, if it does: its fingerprint and its lots."""
        if self.run_uri is None or any(link.key == "run" for link in self.links):
            return None
        manifest = read_manifest(open_store(self.run_uri))
        return [manifest.fingerprint, manifest.totals.num_lots] if manifest else None

    @property
    def is_finished(self) -> bool:
        return self.record.fingerprint == self.fingerprint and self.store.exists(self.marker)

    def _columns_before(self, key: str) -> frozenset[str] | None:
        """The columns of the rows that the link at `key` gives; None where they are not known."""
        link = next((link for link in self.links if link.key == key and not link.file), None)
        return self.before(link).columns if link else None


class PackStep(ReadingStep):
    """A release of a run or of a mixture."""

    marker = CARD

    @property
    def _format(self) -> str:
        return str(self.flags.get("format", ROWS))

    @property
    def columns(self) -> frozenset[str] | None:
        before = self._columns_before("run")
        return None if before is None or self._format != ROWS else before - INNER_COLUMNS - {REJECT.name}

    def check(self) -> None:
        if self._format not in FORMATS:
            raise UserError(f"flags.format: '{self._format}' is no format{nearest(self._format, FORMATS)}")
        if self.flags.get("shard_mb", 1) < 1:
            raise UserError("flags.shard_mb must be at least 1")
        load_facts(self.flags.get("facts"))
        if self.tables is not None:
            self._check_mixture()
            return
        link = next((link for link in self.links if link.key == "run"), None)
        before = self.before(link) if link else None
        if isinstance(before, ProduceStep) and before.compiled:
            schema = before.compiled.schema.remove_metadata()
            find_format(self._format, pa.schema([schema.field(name) for name in release_columns(schema)]))

    def _check_mixture(self) -> None:
        assert self.tables is not None
        mixture = load_mixture(self.tables)
        for number, part in enumerate(mixture.parts):
            columns = self._columns_before(f"parts.{number}.uri")
            for name in part.columns.values():
                if columns is not None and name not in columns:
                    raise UserError(f"part '{part.title}': the step gives no column '{name}'{nearest(name, columns)}")

    def spec_literals(self) -> Any:
        without, facts = self.flags.get("without"), self.flags.get("facts")
        contents = [read_listing(without).digest] if without else []
        return [*super().spec_literals(), *contents, *([literals(load_facts(facts))] if facts else [])]

    def show_plan(self, console: SafeConsole) -> None:
        what = "the mixture" if self.tables is not None else self.spec.run
        console.print_line(f"a release of {what} as {self._format} into {self.uri}")

    def run(self, console: SafeConsole | None = None) -> StepEnd:
        if self._was_begun and not (self.store.exists(self.marker) or self.store.exists(BEGUN)):
            self.store.clear()  # of an earlier start of this step, and nothing says how far it came
        source = self.tables if self.tables is not None else self.run_uri
        assert source is not None
        flags = {name: self.flags[flag] for flag, name in PACK_OPTIONS.items() if flag in self.flags}
        pack(source, self.uri, PackOptions(format_name=self._format, **flags))
        return StepEnd("complete")


class EvaluateStep(ReadingStep):
    """An evaluation of rows."""

    marker = REPORT
    needs_ray = False
    _metrics: dict[str, Any] | None = None

    @property
    def _args(self) -> EvaluateArgs:
        assert self.run_uri is not None
        return EvaluateArgs(synthetic=self.run_uri, out=self.uri, **self.flags)

    def spec_literals(self) -> Any:
        paths = [self.flags[flag] for flag in ("schema", "student") if flag in self.flags]
        return [*super().spec_literals(), *(plain(load_table(path), path) for path in paths)]

    def check(self) -> None:
        check_packages(self._args)
        columns = self._columns_before("run")
        for flag in ("target", "text_column"):
            name = self.flags.get(flag)
            if name is not None and columns is not None and name not in columns:
                raise UserError(f"flags.{flag}: the step gives no column '{name}'{nearest(name, columns)}")

    def show_plan(self, console: SafeConsole) -> None:
        against = f"{self.spec.flags['real_train']} and {self.spec.flags['real_holdout']}"
        console.print_line(f"an evaluation of {self.spec.run} against {against} into {self.uri}")

    def run(self, console: SafeConsole | None = None) -> StepEnd:
        self._metrics = dict(evaluate(self._args).totals)
        return StepEnd("complete")

    def show_end(self) -> None:
        if self._metrics:
            open_console().print(summary_table(self._metrics))
