"""FFPlug: optical flow, frame interpolation, space-time supersampling and faces, as plugins on MMEngine."""

from ffplug.version import PLUGIN_API, __version__

__all__ = ["PLUGIN_API", "__version__"]
