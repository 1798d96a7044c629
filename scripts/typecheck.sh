#!/usr/bin/env bash
# mypy over the package. It does not run `gristmill/__init__.py`, so it finds the floors through links, as in a wheel.
set -euo pipefail
cd "$(dirname "$0")/.."
tree=.cache/typed/gristmill
rm -rf .cache/typed
mkdir -p "$tree"
for path in gristmill/*.py gristmill/py.typed gristmill/testing records engines stages evaluation generators cluster jobs; do
    if [ -e "$path" ]; then ln -s "$PWD/$path" "$tree/"; fi
done
MYPYPATH=.cache/typed exec .venv/bin/python -m mypy -p gristmill "$@"
