"""Gristmill turns a Ray cluster into a mill for synthetic data.

The code of each floor (records, engines, stages, evaluation, generators, cluster, jobs) is a subpackage:
`gristmill.records`, `gristmill.stages`, ... In a wheel they lie inside this folder; in a checkout they lie beside it.
"""

from pathlib import Path

__version__ = "0.2.0"

_HERE = Path(__file__).resolve().parent
if not (_HERE / "records").is_dir():
    __path__.append(str(_HERE.parent))  # a checkout: the floors are the folders at its top
