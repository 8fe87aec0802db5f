"""The network and its parts."""

from ffplug_fpnmaa.models.affect_fpn import AffectFPN, AffectPreprocessor
from ffplug_fpnmaa.models.head import MultiTaskAffectHead
from ffplug_fpnmaa.models.necks import PyramidNeck, StageMeans

__all__ = ["AffectFPN", "AffectPreprocessor", "MultiTaskAffectHead", "PyramidNeck", "StageMeans"]
