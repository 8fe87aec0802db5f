"""A model, a data set, a metric and a recorder: as random as the real ones, and small."""

import json
import random
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset

from ffplug.datasets.seeding import index_rng
from ffplug.structures import FlowDataSample
from toy_engine.registry import DATASETS, HOOKS, METRICS, MODELS


@DATASETS.register_module()
class ToyFlow(Dataset):
    """Pairs of noise; augmentation draws from all three generators. ``poison`` has a flow of NaN, ``torn`` raises."""

    def __init__(self, length=11, augment=True, poison=None, torn=None):
        self.length, self.augment, self.poison, self.torn = length, augment, poison, torn

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index == self.torn:
            raise OSError(f"toy/{int(index)}.png is torn")
        generator = torch.Generator().manual_seed(int(index))
        images = torch.randint(0, 256, (2, 3, 16, 24), generator=generator, dtype=torch.uint8)
        flow = torch.randn(2, 16, 24, generator=generator)
        with index_rng(index):
            if self.augment:
                flow = flow * random.uniform(0.5, 2) + float(np.random.randn()) + torch.randn(1)
        if index == self.poison:
            flow[:] = float("nan")
        sample = FlowDataSample(metainfo={"img1_path": f"toy/{int(index)}.png", "sample_id": str(int(index))})
        sample.gt_flow = flow
        return {"inputs": images, "data_samples": sample}


@MODELS.register_module()
class ToyEstimator(BaseModel):
    """A convolution with dropout and noise, and a frozen part that checkpoints leave out.

    ``spare`` adds a layer that the ranks of this list use, and from their third pass on no other.
    """

    def __init__(self, dropout=0.2, width=8, spare=None):
        super().__init__()
        self.first = nn.Conv2d(6, width, 3, padding=1)
        self.norm = nn.InstanceNorm2d(width)
        self.last = nn.Conv2d(width, 2, 3, padding=1)
        self.dropout = dropout
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.spare, self.passes = spare, 0
        if spare is not None:
            self.extra = nn.Conv2d(width, width, 1)

    def checkpoint_exclude_prefixes(self):
        return ("frozen.",)

    def forward(self, inputs, data_samples=None, mode="tensor"):
        device = next(self.parameters()).device
        images = torch.stack(list(inputs)).to(device).float().flatten(1, 2) / 255
        if mode == "loss" and self.dropout:
            images = images + 0.1 * torch.randn_like(images) * random.random() * np.random.rand()
        hidden = nn.functional.dropout(self.norm(self.first(images)).relu(), self.dropout, self.training)
        self.passes += self.training
        if self.spare is not None and ((self.passes < 3 and self.spare) or get_rank() in self.spare):
            hidden = hidden + self.extra(hidden)
        flow = self.last(hidden)
        if mode == "tensor":
            return flow
        if mode == "predict":
            for sample, value in zip(data_samples, flow, strict=True):
                sample.pred_flow = value.detach().float()
            return data_samples
        target = torch.stack([sample.gt_flow for sample in data_samples]).to(device)
        return {"loss_flow": (flow.float() - target).abs().mean()}


@METRICS.register_module()
class ToyEPE(BaseMetric):
    """Mean end-point error, over samples."""

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            flow, true = (
                (sample.pred_flow, sample.gt_flow)
                if hasattr(sample, "pred_flow")
                else (sample["pred_flow"], sample["gt_flow"])
            )
            self.results.append(float((flow.cpu() - true.cpu()).norm(dim=0).double().mean()))

    def compute_metrics(self, results):
        return {"EPE": float(np.mean(results)), "samples": len(results)}


@HOOKS.register_module()
class Recorder(Hook):
    """Append every iteration's loss, to the last bit, to ``losses.jsonl``; take time, so that a test can kill it.

    ``worlds`` gets the number of ranks whenever training starts. With a file ``hurry`` no more time is taken.
    """

    priority = "HIGH"

    def __init__(self, pause=0.0):
        self.pause = pause

    def before_train(self, runner):
        if is_main_process():
            with open(Path(runner.work_dir) / "worlds", "a") as file:
                file.write(f"{get_world_size()}\n")

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if is_main_process():
            with open(Path(runner.work_dir) / "losses.jsonl", "a") as file:
                lr = runner.optim_wrapper.param_groups[0]["lr"]
                file.write(
                    json.dumps([runner.iter, float(torch.as_tensor(outputs["loss"]).detach()).hex(), float(lr).hex()])
                    + "\n"
                )
        if self.pause and not (Path(runner.work_dir) / "hurry").exists():
            time.sleep(self.pause)

    def after_val_epoch(self, runner, metrics=None):
        if is_main_process() and metrics:
            with open(Path(runner.work_dir) / "metrics.jsonl", "a") as file:
                file.write(json.dumps([runner.iter, metrics["EPE"].hex()]) + "\n")
