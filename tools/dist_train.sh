#!/usr/bin/env bash
# Train on several GPUs, or processes on a CPU: tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]
# Several machines and restarts: variables, told in tools/torchrun.sh and docs/machines.md.
set -euo pipefail
source "$(dirname "$0")/torchrun.sh"
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG PROCESSES [options of tools/train.py]" >&2
    exit 2
fi
if [[ ${NNODES:-1} == *:* && " $* " != *" --resume"* ]]; then
    echo "NNODES=$NNODES: training starts again whenever a machine comes or goes; add --resume" >&2
    exit 2
fi
launch "$2" "$(dirname "$0")/train.py" "$1" --launcher pytorch "${@:3}"
