from mmengine.config import read_base

with read_base():
    from ffplug.configs.strategies.fsdp import *

    from .train_toy import *
