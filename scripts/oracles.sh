#!/usr/bin/env bash
# Other implementations beside ours, in .venv.oracles: what .venv holds, and on top of it the peers with what they need.
# ctgan, rdt, sdmetrics and copulas are not under a licence that lets them be dependencies; here they only measure.
#   scripts/oracles.sh [metrics] [speed] [quality]
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=.venv.oracles
PEERS="ctgan==0.12.1 rdt==2.0.0 sdmetrics==0.32.0 copulas==0.14.1 prdc==0.2
    pandas==2.3.3 faker==40.54.0 plotly==7.1.0 pytz==2026.6 tzdata==2026.6"
if [ "$(cat "$VENV/.stamp" 2>/dev/null)" != "$PEERS" ]; then
    echo "oracles: installing into $VENV"
    .venv/bin/python -m venv "$VENV"
    .venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
        > "$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/gristmill.pth"
    # shellcheck disable=SC2086
    "$VENV/bin/python" -m pip --disable-pip-version-check install -q --no-deps $PEERS
    echo "$PEERS" > "$VENV/.stamp"
fi
exec "$VENV/bin/python" -m tests.oracles "$@"
