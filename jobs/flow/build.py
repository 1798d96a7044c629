"""From a flow file to its steps: built, linked and checked; nothing is started."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gristmill.jobs.flow.fit_steps import FitStep, StudyStep
from gristmill.jobs.flow.links import check_links
from gristmill.jobs.flow.produce_step import ProduceStep
from gristmill.jobs.flow.reading_steps import EvaluateStep, PackStep
from gristmill.jobs.flow.spec import load_flow
from gristmill.jobs.flow.state import FlowFile, StepRecord, load
from gristmill.jobs.flow.step import Chain, Step
from gristmill.jobs.recipes.toml_file import TomlSource
from gristmill.records.errors import UserError
from gristmill.records.stores.contract import Store

logger = logging.getLogger(__name__)

VERBS: dict[str, type[Step]] = {
    "produce": ProduceStep,
    "fit": FitStep,
    "study": StudyStep,
    "pack": PackStep,
    "evaluate": EvaluateStep,
}
OTHERS = ("manifest.json", "model.json", "study.json", "metrics.json", "mixture.json", "croissant.json")


def build_chain(source: TomlSource, store: Store, settings: Sequence[str] = ()) -> tuple[Chain, FlowFile]:
    """The steps, checked as far as they can be before the first one runs, and the state of their outputs.

    Raises UserError, which names the step.
    """
    spec, tables = load_flow(source, settings)
    state = _state(store, spec.name, spec.description, [(step.name, step.verb) for step in spec.steps])
    chain = Chain(spec, store.uri)
    for record, step_spec in zip(state.steps, spec.steps):
        step = VERBS[step_spec.verb](step_spec, tables[step_spec.name], chain, record)
        check_links(spec, step_spec, step.links)
        chain.steps[step.name] = step
    for step in chain.steps.values():
        with naming(step):
            step.check()
    return chain, state


@contextmanager
def naming(step: Step) -> Iterator[None]:
    """Put the name of a step before the message of a UserError that leaves the block."""
    try:
        yield
    except UserError as error:
        raise UserError(f"step '{step.name}': {error}") from error


def _state(store: Store, name: str, description: str, steps: Sequence[tuple[str, str]]) -> FlowFile:
    """The state of the output, new for a new one, with a record for each step of the file.

    Raises UserError for the output of another verb, and for a step that was of another verb.
    """
    before = load(store)
    if before is None:
        if other := next((other for other in OTHERS if store.exists(other)), None):
            raise UserError(f"{store.uri} holds {other}, the output of another verb; choose another --out")
        return FlowFile(name, [StepRecord(*step) for step in steps], description)
    records = {record.name: record for record in before.steps}
    for step, verb in steps:
        if step in records and records[step].verb != verb:
            raise UserError(
                f"{store.uri}: step '{step}' was a {records[step].verb} step when this output was begun and is {verb} "
                "now; rename it, or choose another --out"
            )
    kept = [records.get(step) or StepRecord(step, verb) for step, verb in steps]
    return FlowFile(name, kept, description, before.state, before.starts)
