"""The command line by itself: every verb takes its flags, and every example in --help is understood."""

import importlib
import inspect
import re
import subprocess
import sys

import pytest

import gristmill
from gristmill.jobs import help_texts
from gristmill.jobs.cli import main
from gristmill.jobs.release import formats
from gristmill.jobs.verbs import FORMATS, parser

VERBS = next(action for action in parser()._actions if action.dest == "verb").choices
TEXTS = help_texts.GRISTMILL_EXAMPLES + "".join(examples for _, examples in help_texts.VERBS.values())
EXAMPLES = [line.strip() for line in TEXTS.replace("\\\n", "").splitlines() if line.startswith("  gristmill ")]


def test_every_verb_calls_a_function_that_takes_its_flags() -> None:
    assert VERBS.keys() == help_texts.VERBS.keys()
    for name, verb in VERBS.items():
        module, _, function = verb.get_default("run").partition(":")
        run = getattr(importlib.import_module(f"gristmill.jobs.{module}"), function)
        flags = {action.dest: None for action in verb._actions if action.dest != "help"}
        inspect.signature(run).bind(**flags), name


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_understood(example: str) -> None:
    words = re.sub(r" > .*", "", example).split()[1:]
    flags = parser().parse_args(words)
    assert flags.verb == words[0]


def test_the_formats_are_those_of_pack() -> None:
    assert FORMATS == formats.FORMATS


def test_version(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"gristmill {gristmill.__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from gristmill.jobs.verbs import parser; parser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "pyarrow", "ray", "torch", "jinja2"} & set(done.stdout.split())
