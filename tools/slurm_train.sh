#!/usr/bin/env bash
# Train on a Slurm cluster: GPUS_PER_NODE=8 NODES=2 tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
# One torchrun per node; SRUN_ARGS adds options of srun. A requeued job goes on if --resume is among the options.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: [GPUS_PER_NODE=8 NODES=1 CPUS_PER_GPU=5 SRUN_ARGS=...] $0 PARTITION JOB_NAME CONFIG [options]" >&2
    exit 2
fi
export GPUS_PER_NODE="${GPUS_PER_NODE:-8}" NODES="${NODES:-1}" MASTER_PORT="${MASTER_PORT:-29500}"
export PYTHON="${PYTHON:-python}" FFPLUG_TRAIN="$(dirname "$0")/train.py"
# shellcheck disable=SC2016,SC2086  # the inner shell expands, on each node; SRUN_ARGS is several words
exec srun --partition="$1" --job-name="$2" --nodes="$NODES" --ntasks-per-node=1 --gres="gpu:$GPUS_PER_NODE" \
    --cpus-per-task="$((GPUS_PER_NODE * ${CPUS_PER_GPU:-5}))" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    bash -c 'exec "$PYTHON" -m torch.distributed.run --nnodes="$NODES" --node_rank="$SLURM_NODEID" \
        --nproc_per_node="$GPUS_PER_NODE" --master_port="$MASTER_PORT" \
        --master_addr="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)" \
        "$FFPLUG_TRAIN" "$@" --launcher pytorch' train "${@:3}"
