from ffplug.plugin import find
from ffplug.testing import PluginConformance

COMPILED = "mmflow_pwcnet"


class TestPlugin(PluginConformance):
    package = "ffplug_mmflow"
    left_out = {
        "gradients[mmflow_irrpwc]": "its occlusion decoder has no ground truth in FFPlug's data sets",
        **{
            f"compiled[{name}]": "MMFlow's code, minutes of compilation; one of its networks stands for all"
            for name in find(package).models
            if name != COMPILED
        },
    }
