"""FFPlug's registries: direct children of MMEngine's roots, scope ``ffplug``.

``locations`` makes a module load when a type of it is first looked up, so importing this file is cheap and no
list of imports has to be kept. Types are always written qualified, ``type='ffplug.RecurrentFlowEstimator'``.
"""

from mmengine import registry as root
from mmengine.registry import Registry

import ffplug.compat  # noqa: F401  (mends what MMEngine gets wrong before anything is built)


def child(name: str, parent: Registry, *locations: str) -> Registry:
    """Make the FFPlug child of one of MMEngine's root registries."""
    return Registry(name, parent=parent, scope="ffplug", locations=list(locations))


MODELS = child("model", root.MODELS, "ffplug.models")
DATASETS = child("dataset", root.DATASETS, "ffplug.datasets")
DATA_SAMPLERS = child("data sampler", root.DATA_SAMPLERS, "ffplug.datasets")
TRANSFORMS = child("transform", root.TRANSFORMS, "ffplug.datasets")
METRICS = child("metric", root.METRICS, "ffplug.evaluation")
EVALUATORS = child("evaluator", root.EVALUATOR, "ffplug.evaluation")
HOOKS = child("hook", root.HOOKS, "ffplug.engine")
LOOPS = child("loop", root.LOOPS, "ffplug.engine")
OPTIM_WRAPPERS = child("optim_wrapper", root.OPTIM_WRAPPERS, "ffplug.engine")
OPTIM_WRAPPER_CONSTRUCTORS = child("optimizer wrapper constructor", root.OPTIM_WRAPPER_CONSTRUCTORS, "ffplug.engine")
STRATEGIES = child("strategy", root.STRATEGIES, "ffplug.engine")
VISUALIZERS = child("visualizer", root.VISUALIZERS, "ffplug.visualization")

OPS = Registry("op", scope="ffplug", locations=["ffplug.ops"])
"""Operators with several backends (see :mod:`ffplug.ops`): a root of its own, for MMEngine has none."""

CONVERTERS = Registry("converter", scope="ffplug", locations=["ffplug.apis.converters"])
"""Functions that rename the state dict of a public implementation, by the name of its source."""

MIGRATIONS = Registry("migration", scope="ffplug", locations=["ffplug.apis.migration"])
"""Functions that translate a config file of another system (see :mod:`ffplug.apis.migration`), by its name."""

LAYOUTS = Registry("layout", scope="ffplug", locations=["ffplug.datasets.public_layouts"])
"""How data sets lie on disk (see :class:`ffplug.datasets.layouts.Layout`), by the name that the command line takes."""

PREPARERS = Registry("preparer", scope="ffplug", locations=["ffplug.datasets.procedural"])
"""Callables of a config that put data in place before anything is built (config key ``prepare_data``)."""
