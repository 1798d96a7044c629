"""Every key of a recipe's own tables has a sentence, which becomes its row in the reference."""

import ast
import inspect
import textwrap
from dataclasses import fields
from typing import Any

import pytest

from gristmill.cluster.spec import ClusterSpec, Limits, PoolSpec
from gristmill.jobs.recipes.recipe import GateAuditSpec, Recipe
from gristmill.records.output.shards import OutputSpec
from gristmill.records.readers.sources import SourceSpec
from gristmill.records.rounds import RoundsSpec


@pytest.mark.parametrize(
    "spec", [Recipe, GateAuditSpec, SourceSpec, OutputSpec, RoundsSpec, Limits, ClusterSpec, PoolSpec]
)
def test_every_key_is_explained(spec: Any) -> None:
    source = textwrap.dedent(inspect.getsource(spec))
    lines = source.splitlines()
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    explained = set()
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above, last = lines[node.lineno - 2].strip(), lines[(node.end_lineno or 0) - 1]
            if "  # " in last or above.startswith("#"):
                explained.add(node.target.id)
    assert explained == {f.name for f in fields(spec)}
