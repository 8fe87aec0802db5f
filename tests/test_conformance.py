"""The core keeps the promises that it asks of plugins."""

from ffplug.testing import PluginConformance


class TestCore(PluginConformance):
    package = "ffplug"
