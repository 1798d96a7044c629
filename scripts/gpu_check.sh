#!/usr/bin/env bash
# Checks a GPU node in at most ten minutes: installs what deploy/cuda.lock pins, then prints tokens/s/GPU through
# `produce` beside raw vLLM and datatrove's published figures, and whether the engine is batch invariant.
#   scripts/gpu_check.sh                        the packaged model
#   scripts/gpu_check.sh Qwen/Qwen3-4B ...      models from the hub or folders
set -euo pipefail
cd "$(dirname "$0")/.."
if command -v nvidia-smi > /dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
    PROFILE=gpu scripts/setup.sh test
else
    echo "no GPU here: the same steps with the CPU engine and fewer asks" >&2
    scripts/setup.sh test
fi
exec .venv/bin/python -m tests.bench.gpu "$@"
