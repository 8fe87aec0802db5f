"""The promises that every plugin of FFPlug keeps; `ffplug check ugsp` shows them as a table."""

from typing import ClassVar

from ffplug.testing import PluginConformance


class TestPlugin(PluginConformance):
    package = "ffplug_ugsp"
    left_out: ClassVar = {
        "compiled[ifrnet]": "ifrnet_s is the same network, narrower",
        "compiled[ifrnet_l]": "ifrnet_s is the same network, narrower",
        "compiled[rife_m]": "rife is the same network with a plane less",
    }
