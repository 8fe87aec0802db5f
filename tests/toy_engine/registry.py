from mmengine import registry as root
from mmengine.registry import Registry


def child(name, parent):
    return Registry(name, parent=parent, scope="toy_engine", locations=["toy_engine.parts"])


MODELS = child("model", root.MODELS)
DATASETS = child("dataset", root.DATASETS)
HOOKS = child("hook", root.HOOKS)
METRICS = child("metric", root.METRICS)
