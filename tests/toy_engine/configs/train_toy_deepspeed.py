from mmengine.config import read_base

with read_base():
    from ffplug.configs.strategies.deepspeed import *

    from .train_toy import *
