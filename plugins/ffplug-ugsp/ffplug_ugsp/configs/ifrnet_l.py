"""IFRNet, large: 19,699,460 parameters."""

from mmengine.config import read_base

with read_base():
    from .ifrnet import *

model["network"].update(widths=(64, 96, 144, 192), decoder_widths=(384, 432, 288, 192), side=64, kernel=7)
