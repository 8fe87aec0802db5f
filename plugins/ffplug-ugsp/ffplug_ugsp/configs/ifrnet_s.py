"""IFRNet, small: 2,803,610 parameters."""

from mmengine.config import read_base

with read_base():
    from .ifrnet import *

model["network"].update(widths=(24, 36, 54, 72), decoder_widths=(144, 162, 108, 72), side=24)
