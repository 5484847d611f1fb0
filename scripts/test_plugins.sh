#!/usr/bin/env bash
# The plugins for Pipecat and LiveKit, in an environment of their own that has both frameworks (about 1 GB).
#
#   scripts/test_plugins.sh [FLAGS OF PYTEST]
#
# Needs scripts/test.sh to have run once, espeak-ng and chromium.
set -euo pipefail
cd "$(dirname -- "$0")/.."
own=${XDG_CACHE_HOME:-$HOME/.cache}/echomimic-live/plugins-venv
project=${ECHOMIMIC_VENV:-.venv}
if ! "$own/bin/python" -c 'import pipecat, livekit.agents, aiortc' 2>/dev/null; then
  python3 -m venv "$own"
  "$own/bin/python" -m pip install --disable-pip-version-check -q 'pipecat-ai[webrtc]>=1.8,<2' 'livekit-agents>=1.5,<2' \
    'websockets>=15' 'numpy>=1.26' 'pillow>=10.4'
fi
ECHOMIMIC_PLUGINS_PYTHON="$own/bin/python" exec "$project/bin/python" -m pytest tests/clients/test_plugins.py "$@"
