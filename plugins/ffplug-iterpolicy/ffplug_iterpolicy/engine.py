"""The training of a policy: its temperature, and the finished network that it starts from."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from ffplug.errors import CheckpointError, ConfigError
from ffplug_iterpolicy.models.context_policy import ContextIterationPolicy
from ffplug_iterpolicy.registry import HOOKS


def policies(model: nn.Module) -> dict[str, ContextIterationPolicy]:
    """The learned policies of a model by the prefix of their keys in the state dict (``decoder.policy.``)."""
    found = model.named_modules()
    return {f"{name}.": module for name, module in found if isinstance(module, ContextIterationPolicy)}


@HOOKS.register_module()
class PolicyHook(Hook):
    """Lower the temperature of the decisions while the policy trains, and see that it trains on a finished network.

    The temperature falls from 1 in a straight line that would reach 0 half way through, and stays at its floor.

    Args:
        floor: lowest temperature.
        require_base: refuse to train a policy on random weights, as it would without ``load_from``.

    Raises:
        ConfigError: in ``before_train``: the model has no learned policy, or there is no base.
        CheckpointError: in ``after_load_checkpoint``: the weights are of another base.
    """

    def __init__(self, floor: float = 0.4, require_base: bool = True) -> None:
        self.floor = floor
        self.require_base = require_base

    def before_train(self, runner: Any) -> None:
        """Check that there is something to train, and something to train it on."""
        if not policies(_bare(runner.model)):
            raise ConfigError(
                "PolicyHook: the model has no policy=dict(type='ffplug_iterpolicy.ContextIterationPolicy')"
            )
        if self.require_base and not (runner._load_from or runner._resume):
            raise ConfigError(
                "a policy is trained on a finished network: give its weights, --cfg-options load_from=WEIGHTS "
                "(`ffplug convert` makes them from a public checkpoint)"
            )

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Set the temperature."""
        temperature = max(1 - runner.iter / (0.5 * runner.max_iters), self.floor)
        for policy in policies(_bare(runner.model)).values():
            policy.temperature = temperature

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Refuse weights in which anything but the policy is missing or of another shape."""
        state = {key.removeprefix("module."): value for key, value in checkpoint.get("state_dict", checkpoint).items()}
        model = _bare(runner.model)
        prefixes, expected = tuple(policies(model)), model.state_dict()
        others = [
            key
            for key, value in expected.items()
            if not key.startswith(prefixes)
            and not key.endswith("num_batches_tracked")
            and (key not in state or state[key].shape != value.shape)
        ]
        others += [key for key in state if key not in expected]
        if others:
            raise CheckpointError(
                f"these weights are of another base than the config's: {len(others)} tensors do not fit "
                f"({', '.join(others[:3])}{', ...' if len(others) > 3 else ''}): give weights of this base, or take "
                "the config of theirs"
            )


def _bare(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model
