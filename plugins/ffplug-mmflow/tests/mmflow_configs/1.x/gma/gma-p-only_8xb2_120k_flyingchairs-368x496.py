_base_ = [
    '../_base_/models/gma/gma_p-only.py',
    '../_base_/datasets/flyingchairs_raft_368x496.py',
    '../_base_/schedules/gma_120k.py', '../_base_/default_runtime.py'
]
