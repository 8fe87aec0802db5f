"""Base configs: networks in ``models``, data sets in ``data``, what every run shares in ``runtime``, and ``recipes``.

A config inherits from them with MMEngine's ``with read_base(): from ffplug.configs.runtime import *``.
"""
