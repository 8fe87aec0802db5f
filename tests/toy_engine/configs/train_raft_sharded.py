from mmengine.config import read_base

with read_base():
    from ffplug.configs.strategies.activation_checkpointing import *
    from ffplug.configs.strategies.fsdp import *

    from .train_raft import *
