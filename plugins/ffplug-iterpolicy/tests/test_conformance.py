"""The promises that every plugin of FFPlug keeps; `ffplug check iterpolicy` shows them as a table."""

from ffplug.testing import PluginConformance


class TestPlugin(PluginConformance):
    package = "ffplug_iterpolicy"
    left_out = {
        f"{check}[{model}]": "slow, and the policy is the same in raft_large_iterpolicy; the base has its own checks"
        for check in ("compiled", "batches", "bfloat16", "predictions")
        for model in ("gma_iterpolicy", "flowformer_iterpolicy")
    }
