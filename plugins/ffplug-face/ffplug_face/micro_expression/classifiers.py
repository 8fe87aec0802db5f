"""Small convolutional classifiers of flow images: STSTNet, OFF-ApexNet and RCN-A.

All take N×C×H×W features, whose channels are horizontal flow, vertical flow and optical strain, and give N×classes
logits. Parameters have the names of the public implementations, so that their checkpoints load as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ffplug_face.registry import MODELS


@MODELS.register_module()
class STSTNet(nn.Module):
    """Shallow triple-stream three-dimensional CNN (Liong et al., FG 2019), 1683 parameters.

    Args:
        classes: number of classes.
        dropout: share of values dropped in each stream.

    Example:
        dict(type="ffplug_face.STSTNet")
    """

    input_size = 28
    """Side of its pictures, in pixels."""

    def __init__(self, classes: int = 3, dropout: float = 0.5) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(3, width, 3, padding=2) for width in (3, 5, 8))
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(width) for width in (3, 5, 8))
        self.pool = nn.MaxPool2d(3, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(16 * 5 * 5, classes)

    def streams(self, image: Tensor) -> Tensor:
        """The three streams beside each other: N×3×28×28 to N×16×10×10."""
        pairs = ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3))
        return torch.cat([self.dropout(self.pool(norm(conv(image).relu()))) for conv, norm in pairs], dim=1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of N×3×28×28 pictures, N×classes."""
        return self.fc(functional.avg_pool2d(self.streams(image), 2).flatten(1))


@MODELS.register_module()
class OFFApexNet(nn.Module):
    """OFF-ApexNet (Gan et al., Signal Processing: Image Communication 2019): flow without strain.

    Args:
        classes: number of classes.
        two_streams: the paper's form, one stream of 5×5 convolutions for each flow component and two layers of 1024
            units; False for the form of the MEB benchmark, one stream of 3×3 convolutions on both.
        dropout: share of values dropped before the linear layers.

    Example:
        dict(type="ffplug_face.OFFApexNet", two_streams=False)
    """

    input_size = 28

    def __init__(self, classes: int = 3, two_streams: bool = True, dropout: float = 0.5) -> None:
        super().__init__()
        channels, count, kernel = (1, 2, 5) if two_streams else (2, 1, 3)
        self.streams = nn.ModuleList(self._stream(channels, kernel) for _ in range(count))
        layers: list[nn.Module] = [nn.Dropout(dropout), nn.Linear(count * 16 * 7 * 7, 1024), nn.ReLU()]
        if two_streams:
            layers += [nn.Dropout(dropout), nn.Linear(1024, 1024), nn.ReLU()]
        self.head = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(1024, classes))

    @staticmethod
    def _stream(channels: int, kernel: int) -> nn.Sequential:
        def stage(before: int, after: int) -> list[nn.Module]:
            return [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.ReLU(), nn.MaxPool2d(2)]

        return nn.Sequential(*stage(channels, 6), *stage(6, 16), nn.Flatten())

    def forward(self, image: Tensor) -> Tensor:
        """Logits of N×C×28×28 pictures, of which the first two channels are used, N×classes."""
        parts = image[:, :2].chunk(len(self.streams), dim=1)
        return self.head(torch.cat([stream(part) for stream, part in zip(self.streams, parts, strict=True)], dim=1))


class _RecurrentBlock(nn.Module):
    """A 1×1 convolution, then one 3×3 convolution applied again and again to its result plus the input."""

    def __init__(self, width: int, steps: int = 2) -> None:
        super().__init__()
        self.steps = steps
        self.ffconv = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.rrconv = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, features: Tensor) -> Tensor:
        state = self.ffconv(features)
        for _ in range(self.steps):
            state = self.rrconv(features + state)
        return state


@MODELS.register_module()
class RCNA(nn.Module):
    """Recurrent convolutional network with attention that has no parameters, RCN-A (Xia et al., TIP 2020).

    The attention is made of the classifier's own weights: where they and the features agree, for any class.

    Args:
        classes: number of classes.
        width: channels.
        pool_size: side of the map that the classifier sees.
        dropout: share of values dropped after each stage.

    Example:
        dict(type="ffplug_face.RCNA", width=8)
    """

    input_size = 60

    def __init__(self, classes: int = 3, width: int = 32, pool_size: int = 5, dropout: float = 0.5) -> None:
        super().__init__()
        self.pool_size = pool_size
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, width, 5), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(dropout)
        )
        self.rcls = nn.ModuleList([_RecurrentBlock(width)])
        self.pool = nn.Sequential(nn.MaxPool2d(2), nn.Dropout(dropout))
        self.classifier = nn.Linear(width * pool_size**2, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classifier.weight, std=0.01)

    def attention(self, features: Tensor) -> Tensor:
        """Mean over the classes of their activation maps, each in 0..1: N×width×h×w to N×1×p×p."""
        pooled = functional.adaptive_avg_pool2d(features, self.pool_size)
        weights = self.classifier.weight.view(-1, *pooled.shape[1:])
        maps = torch.einsum("kchw,nchw->nkhw", weights, pooled) / pooled.shape[1]
        maps = maps - maps.amin((2, 3), keepdim=True)
        return (maps / (maps.amax((2, 3), keepdim=True) + 1e-8)).mean(1, keepdim=True)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of N×3×60×60 pictures in 0..1, N×classes."""
        features = self.conv1(image)
        recurrent = features
        for block in self.rcls:
            recurrent = block(recurrent)
        pooled = functional.adaptive_avg_pool2d(self.pool(recurrent), self.pool_size)
        return self.classifier((pooled * self.attention(features)).flatten(1))
