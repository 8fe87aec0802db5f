from ffplug.testing import PluginConformance


class TestPlugin(PluginConformance):
    package = "ffplug_latentface"
