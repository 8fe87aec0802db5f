"""Configs of FlowFormer: models, and the recipes they were trained with."""
