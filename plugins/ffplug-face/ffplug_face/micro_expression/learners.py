"""What learns from the training clips of a fold: a network on MMEngine's Runner, or the baseline of 147 numbers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from ffplug.errors import ConfigError, PluginError
from ffplug_face.micro_expression.features import Normaliser
from ffplug_face.registry import MODELS, TRANSFORMS


class Learner(Protocol):
    """Learns from training clips, then predicts others. It is never given a label of the others."""

    def fit(
        self,
        features: Tensor,
        labels: Tensor,
        datasets: Sequence[str],
        classes: int,
        seed: int,
        after_epoch: Callable[[Learner], None] | None = None,
    ) -> None:
        """Learn.

        Args:
            features: N×C×H×W, as :class:`~ffplug_face.micro_expression.features.FlowFeature` gives them.
            labels: N int64, 0..classes-1.
            datasets: data set of each clip.
            classes: number of classes.
            seed: of all that is random.
            after_epoch: called with the learner after each epoch, where there are any.
        """

    def predict(self, features: Tensor, datasets: Sequence[str]) -> Tensor:
        """Probabilities N×classes of other clips."""


@MODELS.register_module()
class GridBaseline:
    """Multinomial logistic regression on 7×7 means of each channel: 147 numbers, seconds for all folds.

    Args:
        grid: means in each direction.
        strength: of the fit, the inverse of the L2 penalty.

    Raises:
        PluginError: scikit-learn is not installed.

    Example:
        dict(type="ffplug_face.GridBaseline", grid=7)
    """

    def __init__(self, grid: int = 7, strength: float = 1.0) -> None:
        self.grid = grid
        self.strength = strength

    def fit(  # noqa: D102
        self,
        features: Tensor,
        labels: Tensor,
        datasets: Sequence[str],
        classes: int,
        seed: int,
        after_epoch: Callable[[Learner], None] | None = None,
    ) -> None:
        try:
            from sklearn.linear_model import LogisticRegression
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler
        except ImportError:
            raise PluginError(
                "GridBaseline needs scikit-learn: pip install 'ffplug-face[baseline]', or take another classifier"
            ) from None
        self.classes = classes
        self.seen = np.unique(labels.numpy())
        if len(self.seen) > 1:
            regression = LogisticRegression(C=self.strength, class_weight="balanced", max_iter=2000, random_state=seed)
            self.model = make_pipeline(StandardScaler(), regression).fit(self._numbers(features), labels.numpy())

    def predict(self, features: Tensor, datasets: Sequence[str]) -> Tensor:  # noqa: D102
        found = torch.zeros(len(features), self.classes)
        known = self.model.predict_proba(self._numbers(features)) if len(self.seen) > 1 else np.ones((len(features), 1))
        found[:, torch.from_numpy(self.seen)] = torch.from_numpy(known).float()
        return found

    def _numbers(self, features: Tensor) -> np.ndarray:
        return functional.adaptive_avg_pool2d(features, self.grid).flatten(1).double().numpy()


class _Labelled(Dataset):
    """Pictures with labels; each is taken mirrored half of the time where mirrored ones are given."""

    def __init__(self, pictures: Tensor, mirrored: Tensor | None, labels: Tensor) -> None:
        self.pictures = pictures
        self.mirrored = mirrored
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        flipped = self.mirrored is not None and torch.rand(()) < 0.5
        return {"inputs": (self.mirrored if flipped else self.pictures)[index], "labels": self.labels[index]}


class _Classifier(BaseModel):
    """A network with its loss, as a Runner trains it."""

    def __init__(self, network: nn.Module, weights: Tensor, smoothing: float) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("weights", weights)
        self.smoothing = smoothing

    def forward(self, inputs: Tensor, labels: Tensor, mode: str = "loss") -> dict[str, Tensor]:
        logits = self.network(inputs)
        return {"loss": functional.cross_entropy(logits, labels, self.weights, label_smoothing=self.smoothing)}


class _AfterEpoch(Hook):
    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call

    def after_train_epoch(self, runner: Runner) -> None:
        self.call()


@MODELS.register_module()
class NetworkLearner:
    """A classifier of flow images, trained for a fixed number of epochs; the last one counts.

    Args:
        network: config of the classifier, N×C×H×W to logits.
        normaliser: config of what makes features into pictures of 0..255, fitted on the training clips.
        epochs: passes over the training clips.
        batch_size: clips in a step.
        optimizer: config of the optimiser.
        input_range: greatest value of the pictures that the network sees: 1, or 255 as the literature has it.
        balance: power of a class's share by which its weight in the loss falls: 0.5 for 1/sqrt(n), 0 for none.
        label_smoothing: of the cross-entropy.
        mirror: take half of the pictures mirrored, with horizontal flow negated.

    Raises:
        ConfigError: a number is out of its range, or the pictures have not the size of the network.

    Example:
        dict(type="ffplug_face.NetworkLearner", network=dict(type="ffplug_face.STSTNet"))
    """

    def __init__(
        self,
        network: Mapping[str, Any],
        normaliser: Mapping[str, Any] | None = None,
        epochs: int = 200,
        batch_size: int = 64,
        optimizer: Mapping[str, Any] | None = None,
        input_range: float = 1.0,
        balance: float = 0.5,
        label_smoothing: float = 0.05,
        mirror: bool = False,
    ) -> None:
        if epochs < 1 or batch_size < 1 or not input_range > 0:
            raise ConfigError(
                f"NetworkLearner(epochs={epochs}, batch_size={batch_size}, input_range={input_range}): "
                "expected 1 or more, and a positive range"
            )
        self.config = dict(network)
        self.normaliser: Normaliser = TRANSFORMS.build(dict(normaliser or {"type": "ffplug_face.FixedScale"}))
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = dict(optimizer or {"type": "Adam", "lr": 1e-3})
        self.input_range = input_range
        self.balance = balance
        self.label_smoothing = label_smoothing
        self.mirror = mirror
        self.network: nn.Module | None = None

    def fit(  # noqa: D102
        self,
        features: Tensor,
        labels: Tensor,
        datasets: Sequence[str],
        classes: int,
        seed: int,
        after_epoch: Callable[[Learner], None] | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.network = MODELS.build({**self.config, "classes": classes})
        side = getattr(self.network, "input_size", features.shape[-1])
        if features.shape[-1] != side:
            name = type(self.network).__name__
            raise ConfigError(f"{name} takes {side} pixels, the features have {features.shape[-1]}: set feature.size")
        self.normaliser.fit(features, datasets)
        pictures = self._pictures(features, datasets)
        mirrored = self._pictures(mirror(features), datasets) if self.mirror else None
        counts = torch.bincount(labels, minlength=classes).double()
        weights = torch.where(counts > 0, counts.clamp_min(1) ** -self.balance, 0)
        weights = (weights * (counts > 0).sum() / weights.sum()).float()
        model = _Classifier(self.network, weights, self.label_smoothing)
        hooks = [] if after_epoch is None else [_AfterEpoch(lambda: after_epoch(self))]
        with tempfile.TemporaryDirectory() as folder:
            runner = Runner(
                model=model,
                work_dir=folder,
                train_dataloader={
                    "dataset": _Labelled(pictures, mirrored, labels),
                    "batch_size": self.batch_size,
                    "sampler": {"type": "DefaultSampler", "shuffle": True},
                    "collate_fn": {"type": "default_collate"},
                },
                train_cfg={"by_epoch": True, "max_epochs": self.epochs},
                optim_wrapper={"optimizer": dict(self.optimizer)},
                default_hooks={"checkpoint": None, "logger": None, "timer": None},
                custom_hooks=hooks,
                randomness={"seed": seed},
                log_level="ERROR",
                experiment_name=f"fold-{seed}-{id(model)}",
                default_scope="mmengine",
            )
            runner.train()
        self.network.cpu()

    def predict(self, features: Tensor, datasets: Sequence[str]) -> Tensor:  # noqa: D102
        training, device = self.network.training, next(self.network.parameters()).device
        self.network.eval()
        with torch.no_grad():
            logits = self.network(self._pictures(features, datasets).to(device))
        self.network.train(training)
        return logits.softmax(-1).float().cpu()

    def _pictures(self, features: Tensor, datasets: Sequence[str]) -> Tensor:
        return self.normaliser(features, datasets) * (self.input_range / 255)


def mirror(features: Tensor) -> Tensor:
    """Features N×C×H×W of the mirrored faces: flipped, the first channel (horizontal flow) negated."""
    flipped = features.flip(-1)
    return torch.cat([-flipped[:, :1], flipped[:, 1:]], 1)
