"""The one place that states the version of the core and of the plugin API."""

__version__ = "0.1.0"

PLUGIN_API = 1
"""Version of the contract between core and plugins; a plugin's manifest names the range it works with."""
