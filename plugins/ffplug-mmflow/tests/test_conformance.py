from ffplug.testing import PluginConformance


class TestPlugin(PluginConformance):
    package = "ffplug_mmflow"
    left_out = {
        "gradients[mmflow_irrpwc]": "its occlusion decoder has no ground truth in FFPlug's data sets",
        "compiled": "the networks are MMFlow's code, and each takes minutes to compile",
    }
