"""Build all of a plugin without some modules: ``python -m ffplug.testing.without PACKAGE EXTRA MODULE...``.

Ends with status 1, and what went wrong as its last line, where something fails without naming ``[EXTRA]``.
"""

from __future__ import annotations

import sys


def main(package: str, extra: str, *modules: str) -> None:
    """Hide the modules, import the plugin, build its models and components."""
    for name in modules:
        sys.modules[name] = None  # so that importing it fails, and find_spec says that it is not there

    import torch

    from ffplug.config import load_config
    from ffplug.errors import CheckpointError
    from ffplug.plugin import find, load
    from ffplug.testing.subject import LeftOut, Subject, build

    plugin = find(package)
    load(plugin)
    subject = Subject(plugin)
    jobs = [(name, lambda name=name: load_config(name)["model"].to_dict()) for name in plugin.models]
    jobs += [(case, lambda case=case: subject.example(case)) for case in subject.components("models")]
    for name, config in jobs:
        try:
            with torch.device("meta"):
                build("models", config(), name)
        except CheckpointError:
            continue  # its example needs a file that is not here
        except LeftOut as hint:
            if f"[{extra}]" not in str(hint):
                sys.exit(f"{name}: {hint}")
        except Exception as error:
            if f"[{extra}]" not in str(error):
                sys.exit(f"{name}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
