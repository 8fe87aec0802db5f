#!/usr/bin/env bash
# What dist_train.sh and dist_test.sh share: torchrun set up by variables. Sourced, not run.
#
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=host PORT=29500   several machines, the same on each but for NODE_RANK
#   MAX_RESTARTS=3                                     start all processes again when one ends badly, so many times
#   NNODES=1:4                                         go on with the machines that are there, from 1 to 4 of them
#   LOCAL_ADDR=10.0.0.7                                the address of this machine, where its name is not known to the others
#   RDZV_CONF=last_call_timeout=5                      further settings of torchrun's c10d rendezvous
#
# MASTER_PORT counts as PORT. On one machine alone nothing need be set.
launch() { # PROCESSES SCRIPT [ARGUMENTS]
    local processes=$1 nodes=${NNODES:-1} address=${MASTER_ADDR:-} port=${PORT:-${MASTER_PORT:-29500}} options
    shift
    options=(--nproc-per-node="$processes" --max-restarts="${MAX_RESTARTS:-0}")
    if [[ $nodes != 1 && -z $address ]]; then
        echo "NNODES=$nodes: set MASTER_ADDR to the address of the machine with NODE_RANK=0" >&2
        return 2
    elif [[ -z $address ]]; then
        options+=(--standalone)
    elif [[ $nodes == *:* || ${MAX_RESTARTS:-0} != 0 ]]; then
        # Machines agree among themselves on every start, over the store that the first one keeps.
        options+=(--nnodes="$nodes" --rdzv-backend=c10d --rdzv-endpoint="$address:$port" --rdzv-id="${RUN_ID:-ffplug}"
            --rdzv-conf="is_host=$((${NODE_RANK:-0} == 0))${RDZV_CONF:+,$RDZV_CONF}")
    else
        options+=(--nnodes="$nodes" --node-rank="${NODE_RANK:-0}" --master-addr="$address" --master-port="$port")
    fi
    if [[ -n ${LOCAL_ADDR:-} ]]; then
        options+=(--local-addr="$LOCAL_ADDR")
    fi
    unset MASTER_ADDR MASTER_PORT PORT # torchrun hands its own to the processes
    # Each start gets a store of its own: in a shared one, processes may find addresses of dead ones, and hang.
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    exec "${PYTHON:-python}" -m torch.distributed.run "${options[@]}" "$@"
}
