#!/usr/bin/env bash
# Other implementations beside ours, in .venv.oracles: what .venv holds, and on top of it the peers with what they need.
# ctgan, rdt, sdmetrics and copulas are not under a licence that lets them be dependencies; here they only measure.
#   scripts/oracles.sh [metrics] [speed] [rules] [contamination] [quality]
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=.venv.oracles
PEERS="ctgan==0.12.1 rdt==2.0.0 sdmetrics==0.32.0 copulas==0.14.1 prdc==0.2
    pandas==2.3.3 faker==40.54.0 plotly==7.1.0 pytz==2026.6 tzdata==2026.6
    datatrove==0.10.1 spacy==3.8.18 thinc==8.3.14 blis==1.3.4 cymem==2.0.16 preshed==3.0.15 murmurhash==1.0.16
    srsly==2.5.6 catalogue==2.0.10 wasabi==1.1.3 confection==1.3.4 weasel==1.0.1 spacy-legacy==3.0.12
    spacy-loggers==1.0.5 cloudpathlib==0.26.0 smart_open==9.0.2 loguru==0.7.3 humanize==4.17.0"
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
