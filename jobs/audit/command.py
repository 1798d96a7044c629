"""`gristmill audit URI`: re-reads an output and proves it, or says what is wrong and where."""

from gristmill.jobs.audit.findings import MAX_SHOWN, Findings
from gristmill.jobs.flow.state import load as load_flow
from gristmill.jobs.results import Result
from gristmill.jobs.terminal.console import open_console, print_json
from gristmill.records.errors import UserError
from gristmill.records.exit_codes import DONE, FINDING
from gristmill.records.output import manifest
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store


def audit(uri: str) -> Result:
    """Check an output; the state is "ok" or "wrong". Raises UserError if `uri` holds no output."""
    store, findings = _examine(uri)
    totals = {"ok": not findings.errors, "wrong": findings.errors, "checked": findings.num_checked}
    return Result(store.uri, "wrong" if findings.errors else "ok", totals, _exit_code(findings))


def _examine(uri: str) -> tuple[Store, Findings]:
    store = open_store(uri)
    store.check(write=False)
    return store, examine(store)


def command(uri: str, as_json: bool = False) -> int:
    """Print the findings. Returns 0 if the output is proven, 1 if not. Raises UserError if `uri` holds no output."""
    store, findings = _examine(uri)
    if as_json:
        report = {"ok": not findings.errors, "wrong": findings.errors, "checked": findings.num_checked}
        print_json(report)
        return _exit_code(findings)
    console = open_console()
    for line in findings.errors[:MAX_SHOWN]:
        console.print_line(f"WRONG  {line}")
    if len(findings.errors) > MAX_SHOWN:
        console.print(f"... and {len(findings.errors) - MAX_SHOWN} more")
    checked = ", ".join(f"{number:,} {kind}" for kind, number in findings.num_checked.items())
    verdict = f"{len(findings.errors)} findings" if findings.errors else "ok"
    console.print_line(f"audit of {store.uri}: {verdict} ({checked})")
    return _exit_code(findings)


def _exit_code(findings: Findings) -> int:
    return FINDING if findings.errors else DONE


def examine(store: Store) -> Findings:
    """Check the run, study, flow or release that the store holds. Raises UserError if it holds none."""
    if (flow := load_flow(store)) is not None:
        from gristmill.jobs.audit.flow import examine_flow

        return examine_flow(store, flow, examine)
    if (run := manifest.load(store)) is not None:
        from gristmill.jobs.audit.run import examine_run

        return examine_run(store, run)
    if (study := store.read_if_there("study.json")) is not None:
        from gristmill.jobs.audit.study import examine_study

        return examine_study(store, study)
    if (mixture := store.read_if_there("mixture.json")) is not None:
        from gristmill.jobs.audit.mixture import examine_mixture

        return examine_mixture(store, mixture)
    if store.exists("takedown.json"):
        from gristmill.jobs.audit.takedown import examine_takedown

        return examine_takedown(store)
    raise UserError(
        f"{store.uri} is not an output that can be audited: it holds no {manifest.NAME}, study.json, mixture.json, "
        "takedown.json or flow.json"
    )
