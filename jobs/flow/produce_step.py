"""A produce step. Its source may be the kept rows of an earlier one, which it can read while that step goes on."""

from typing import Any

from gristmill.jobs.flow.links import Link
from gristmill.jobs.flow.step import Step, StepEnd
from gristmill.jobs.produce.command import Outcome, check_output, open_run, run, show_outcome
from gristmill.jobs.produce.forecast import forecast, forecast_table, plan_table
from gristmill.jobs.recipes.compile import CompiledRecipe, build_stages, compile_recipe
from gristmill.jobs.recipes.generators import entries
from gristmill.jobs.recipes.recipe import Recipe, load
from gristmill.jobs.terminal.console import SafeConsole
from gristmill.jobs.terminal.output import Output
from gristmill.records.committed import CommittedRows, Upstream, extent_of
from gristmill.records.output.manifest import load as read_manifest
from gristmill.records.readers.formats import Format
from gristmill.records.readers.parts import ParquetRows
from gristmill.records.readers.places import DataFile
from gristmill.records.readers.row_changes import RowChanges
from gristmill.records.readers.sources import Source, SourceSpec
from gristmill.records.spec import literals
from gristmill.stages.contract import Stage


class ProduceStep(Step):
    """`why_waits`: why it cannot start on the committed rows of the step before; "" where it can, or has no such step.

    compiled: None while the recipe needs the output of a step that has not run.
    """

    compiled: CompiledRecipe | None = None
    why_waits = ""
    is_known = False  # whether the fingerprint is final
    _output: Output | None = None
    _outcome: Outcome | None = None

    @property
    def source_link(self) -> Link | None:
        """The link to the step whose rows are the source."""
        return next((link for link in self.links if link.key == "source.path" and not link.file), None)

    @property
    def columns(self) -> frozenset[str] | None:
        return frozenset(self.compiled.schema.names) if self.compiled else None

    @property
    def engine_widths(self) -> dict[str, int]:
        return self.compiled.engine_widths if self.compiled else {}

    @property
    def starts_engines(self) -> bool:
        return self.compiled is None or bool(self.compiled.pools)

    @property
    def extent(self) -> dict[str, Any]:
        assert self.compiled
        return extent_of(literals(self.compiled.recipe))

    def check(self) -> None:
        assert self.tables is not None
        recipe = load(self.tables)
        stages = build_stages(recipe)
        absent = [link for link in self.links if not self._is_readable(link)]
        if absent:
            list(entries(recipe))  # raises for their faults
            self.note = f"the rest is checked when step '{absent[0].step}' is done"
            return
        self.compiled = compile_recipe(recipe, source=self._source(recipe, stages))
        self.compiled.check()
        self.is_known = self._has_known_source()
        if self.is_known:
            check_output(read_manifest(self.store), self.compiled, self.store)

    def _is_readable(self, link: Link) -> bool:
        """Whether the recipe can be compiled as far as this link goes."""
        before = self.before(link)
        if link == self.source_link and isinstance(before, ProduceStep):
            return before.compiled is not None
        return before.record.is_done

    def _has_known_source(self) -> bool:
        link = self.source_link
        before = self.before(link) if link else None
        if not isinstance(before, ProduceStep):
            return True
        return before.is_known and (not self.why_waits or before.record.is_done)

    def _source(self, recipe: Recipe, stages: list[Stage]) -> Source | None:
        """The rows of the step before, as the source; None where the source is another."""
        link = self.source_link
        if link is None:
            return None
        before = self.before(link)
        if not isinstance(before, ProduceStep):
            return _release(before, recipe.source)
        compiled = before.compiled
        assert compiled
        names = tuple(compiled.schema.names)
        upstream = Upstream(before.name, compiled.fingerprint, before.extent, compiled.is_repeatable, names)
        self.why_waits = _why_waits(recipe, stages, upstream)
        self.note = self.why_waits and f"it waits for the end of step '{before.name}': {self.why_waits}"
        return CommittedRows(before.store, upstream, recipe.source, by_plan=not self.why_waits)

    def show_plan(self, console: SafeConsole) -> None:
        if self.compiled:
            console.print(plan_table(self.compiled, self.uri))
            console.print(forecast_table(forecast(self.compiled, read_manifest(self.store))))
        if self.note:
            console.print_line(self.note)

    def prepare(self) -> None:
        assert self.tables is not None
        recipe = load(self.tables)
        source = self._source(recipe, build_stages(recipe))
        self.compiled, self._output = open_run(self.tables, self.uri, source=source)
        self.fingerprint = self.compiled.fingerprint

    @property
    def is_finished(self) -> bool:
        record = self.record
        if not record.is_done or (record.fingerprint, record.extent) != (self.fingerprint, self.extent):
            return False
        manifest = read_manifest(self.store)
        return manifest is not None and manifest.state == "complete"

    def run(self, console: SafeConsole | None = None) -> StepEnd:
        assert self.compiled and self._output
        outcome = self._outcome = run(self.compiled, self._output, console)
        assert outcome.state != "running"
        return StepEnd(outcome.state, outcome.exit_code)

    def show_end(self) -> None:
        if self._outcome and self.compiled:
            show_outcome(self._outcome, self.compiled, self.store)

    def inputs(self) -> list[dict[str, str]]:
        link, source = self.source_link, self.compiled.source if self.compiled else None
        if not isinstance(source, CommittedRows) or not source.by_plan:
            return super().inputs()
        by_plan = {"step": source.upstream.step, "key": "source.path", "by": "plan", "identity": source.digest()}
        return [by_plan, *self._inputs_of([other for other in self.links if other != link])]


def _release(before: Step, spec: SourceSpec) -> Source:
    """The rows of a release with all their columns."""
    shards = [e for e in before.store.list("train-") if e.name.endswith(".parquet")]
    changes = RowChanges(spec.columns)
    return Source(
        [ParquetRows(DataFile(before.store, entry, Format("parquet", ".parquet")), changes) for entry in shards],
        spec.id_column,
        num_together=spec.samples if spec.together else 1,
    )


def _why_waits(recipe: Recipe, stages: list[Stage], upstream: Upstream) -> str:
    """Why the rows are identified by their content, which is known at the end only; "" where the plan identifies them.

    The plan decides the rows of a repeatable run. Whoever reads a row twice must know how many there are.
    """
    source = recipe.source
    if not upstream.is_repeatable:
        return "its rows depend on batches of its engines or on a budget, so their content identifies them"
    if recipe.rounds is not None:
        return "[rounds] draws from all rows of the source"
    if source.cycle:
        return "source.cycle reads its rows again"
    if source.samples > 1 and not source.together:
        return "source.samples reads its rows again (source.together = true would read each once)"
    reader = next((stage.name for stage in stages if stage.reads_source), None)
    return f"stage '{reader}' reads all rows of the source" if reader else ""
