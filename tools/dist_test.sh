#!/usr/bin/env bash
# Test on several GPUs, or processes on a CPU: tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of tools/test.py]
# Several machines: variables, told in tools/torchrun.sh and docs/machines.md.
set -euo pipefail
source "$(dirname "$0")/torchrun.sh"
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT PROCESSES [options of tools/test.py]" >&2
    exit 2
fi
launch "$3" "$(dirname "$0")/test.py" "$1" "$2" --launcher pytorch "${@:4}"
