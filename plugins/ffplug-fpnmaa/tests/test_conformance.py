"""The promises that every plugin of FFPlug keeps; `ffplug check fpnmaa` shows them as a table."""

from typing import ClassVar

from ffplug.testing import PluginConformance

CHECKS = ("gradients", "predictions", "batches", "weights", "compiled", "bfloat16")
TEACHERS = ("fpn_maa_va", "fpn_maa_expr", "fpn_maa_au")


class TestPlugin(PluginConformance):
    package = "ffplug_fpnmaa"
    left_out: ClassVar = {
        f"{check}[{name}]": "the network of fpn_maa with one of its heads" for check in CHECKS for name in TEACHERS
    }
