#!/usr/bin/env bash
# Train on a Slurm cluster: GPUS_PER_NODE=8 NODES=2 tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
# One torchrun per node; SRUN_ARGS adds options of srun, MAX_RESTARTS=n starts again when a process dies. A requeued job
# goes on if --resume is among the options.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: [GPUS_PER_NODE=8 NODES=1 CPUS_PER_GPU=5 MAX_RESTARTS=0 SRUN_ARGS=...] $0 PARTITION JOB_NAME CONFIG [options]" >&2
    exit 2
fi
export GPUS_PER_NODE="${GPUS_PER_NODE:-8}" NNODES="${NODES:-1}" DIST_TRAIN="$(dirname "$0")/dist_train.sh"
# shellcheck disable=SC2016,SC2086  # the inner shell expands, on each node; SRUN_ARGS is several words
exec srun --partition="$1" --job-name="$2" --nodes="$NNODES" --ntasks-per-node=1 --gres="gpu:$GPUS_PER_NODE" \
    --cpus-per-task="$((GPUS_PER_NODE * ${CPUS_PER_GPU:-5}))" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    bash -c 'export NODE_RANK="$SLURM_NODEID" PORT="${PORT:-${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}}"
        export MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
        exec bash "$DIST_TRAIN" "$1" "$GPUS_PER_NODE" "${@:2}"' train "${@:3}"
