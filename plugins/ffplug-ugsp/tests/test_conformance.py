"""The promises that every plugin of FFPlug keeps; `ffplug check ugsp` shows them as a table."""

from ffplug.testing import PluginConformance


class TestPlugin(PluginConformance):
    package = "ffplug_ugsp"
