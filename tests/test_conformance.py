"""The core keeps the promises that it asks of plugins."""

from ffplug.testing import PluginConformance


class TestCore(PluginConformance):
    package = "ffplug"
    left_out = {"ops": "each op has a test of its own with more cases: tests/test_ops_*.py"}
