"""Steps that train: fit, and study."""

from typing import Any

from gristmill.generators.families.fit import is_finished
from gristmill.generators.families.folder import ModelCard
from gristmill.jobs.fit.command import card_table, finished, plan_table, run
from gristmill.jobs.fit.plan import FitRecipe, Plan, load_plan, read_recipe
from gristmill.jobs.flow.step import Step, StepEnd
from gristmill.jobs.study.command import exit_code_of, open_study
from gristmill.jobs.study.command import run as run_study
from gristmill.jobs.study.plan import cost_line
from gristmill.jobs.study.plan import plan_table as study_table
from gristmill.jobs.study.show import verdict_line
from gristmill.jobs.study.study_file import NAME as STUDY
from gristmill.jobs.study.study_file import identity, read_study
from gristmill.jobs.terminal.console import SafeConsole, open_console
from gristmill.jobs.terminal.output import Output
from gristmill.records.errors import UserError
from gristmill.records.exit_codes import STOPPED
from gristmill.records.schema import RESERVED
from gristmill.records.spec import nearest


class FitStep(Step):
    """A fit. It reads its rows when the step before is done."""

    recipe: FitRecipe | None = None
    _plan: Plan | None = None
    _card: ModelCard | None = None

    @property
    def starts_engines(self) -> bool:
        return True  # a fit needs the room that idle engines would hold

    def check(self) -> None:
        assert self.tables is not None
        self.recipe = read_recipe(self.tables)[0]
        absent = [link for link in self.links if not self.before(link).record.is_done]
        if not absent:
            self._plan = load_plan(self.tables)
            return
        self.note = f"it is fitted to the rows of step '{absent[0].step}'"
        for link in absent:
            columns = self.before(link).columns
            if link.key == "data.path" and not link.file and columns is not None:
                self._check_columns(columns - RESERVED)

    def _check_columns(self, columns: frozenset[str]) -> None:
        """Refuse columns that the step before does not give."""
        assert self.recipe and self.recipe.data
        declared = (self.recipe.schema or {}).get("columns") or []
        names = [c.get("name") for c in declared if isinstance(c, dict)] if isinstance(declared, list) else []
        for name in (*self.recipe.data.columns, *names):
            if isinstance(name, str) and name not in columns:
                raise UserError(f"the rows of the step before have no column '{name}'{nearest(name, columns)}")

    def show_plan(self, console: SafeConsole) -> None:
        if self._plan:
            console.print(plan_table(self._plan, self.uri))
        if self.note:
            console.print_line(self.note)

    def prepare(self) -> None:
        assert self.tables is not None
        plan = self._plan = self._plan or load_plan(self.tables)
        self._output = Output("fit", self.tables, self.uri)
        job = plan.fit(self._output.store)
        self.fingerprint = job.fingerprint
        if is_finished(self._output.store):
            self._card = finished(job, self._output)  # raises UserError for another model

    @property
    def is_finished(self) -> bool:
        return self._card is not None

    def run(self, console: SafeConsole | None = None) -> StepEnd:
        assert self._plan
        self._card = run(self._plan, self._output)
        return StepEnd("complete") if self._card else StepEnd("stopped", STOPPED)

    def show_end(self) -> None:
        if self._card:
            open_console().print(card_table(self._card, self.uri))


class StudyStep(Step):
    """A study."""

    @property
    def starts_engines(self) -> bool:
        return True

    def check(self) -> None:
        assert self.tables is not None
        if absent := [link for link in self.links if not self.before(link).record.is_done]:
            self.note = f"it is checked when step '{absent[0].step}' is done"
            return
        self._study = open_study(self.tables, self.uri, ())
        self.fingerprint = identity(self._study[0])

    def show_plan(self, console: SafeConsole) -> None:
        if self.fingerprint:
            spec, cells, output = self._study
            console.print(study_table(spec, cells, output.store))
            console.print_line(cost_line(spec, cells, output.store))
        if self.note:
            console.print_line(self.note)

    def prepare(self) -> None:
        assert self.tables is not None
        self._study = open_study(self.tables, self.uri, ())
        self.fingerprint = identity(self._study[0])

    @property
    def is_finished(self) -> bool:
        data = self.store.read_if_there(STUDY)
        if data is None:
            return False
        study_file = read_study(data, self.store.path(STUDY))
        is_same = study_file["fingerprint"] == self.fingerprint
        return is_same and study_file.get("ended", {}).get("state") == "complete"

    def run(self, console: SafeConsole | None = None) -> StepEnd:
        self._ended: dict[str, Any] = run_study(*self._study)
        return StepEnd(self._ended["ended"]["state"], exit_code_of(self._ended))

    def show_end(self) -> None:
        open_console().print_line(verdict_line(self._ended["ended"]))
