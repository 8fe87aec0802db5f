"""SAMFlow-tiny on Sintel: the config of `make demo`, which runs anywhere."""

from mmengine.config import read_base

with read_base():
    from ffplug_samflow.configs.samflow_sintel import *
