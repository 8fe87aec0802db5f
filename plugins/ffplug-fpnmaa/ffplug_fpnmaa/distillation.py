"""Teachers first: train them, let them label the student's data, and go on with the student, as one recipe."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.dist import is_main_process
from mmengine.logging import print_log

from ffplug.errors import CheckpointError, ConfigError, DataError
from ffplug.files import atomic_path
from ffplug.registry import DATASETS
from ffplug_fpnmaa.datasets.teachers import FILES, write_teacher_labels
from ffplug_fpnmaa.labels import check_tasks
from ffplug_fpnmaa.registry import PREPARERS


@torch.no_grad()
def teacher_labels(model: Any, dataset: Any, task: str, batch_size: int = 64) -> Iterator[tuple[str, np.ndarray]]:
    """Yield what a model says of each sample of a data set, in its order.

    Args:
        model: an :class:`~ffplug_fpnmaa.models.AffectFPN` with that task.
        dataset: of this plugin.
        task: ``va`` gives 2 numbers (and the probabilities of its bins, where it has some), ``expr`` and ``au``
            probabilities.
        batch_size: pictures at a time.
    """
    if task not in model.tasks:
        raise ConfigError(f"a teacher of {task!r} has {', '.join(model.tasks)} alone")
    model.eval()
    for first in range(0, len(dataset), batch_size):
        batch = pseudo_collate([dataset[index] for index in range(first, min(first + batch_size, len(dataset)))])
        data = model.data_preprocessor(batch)
        outputs = model.tell(data["inputs"])
        told = outputs[task]
        if task == "va" and "va_bins" in outputs:
            told = torch.cat([told, outputs["va_bins"].flatten(1)], dim=1)
        told = told.cpu().numpy()
        for sample, values in zip(data["data_samples"], told, strict=True):
            yield sample.get("sample_id"), values


@PREPARERS.register_module()
class TrainTeachers:
    """Train a teacher for each task where it is not there, let it label a data set, and give the labels to the student.

    Each step is done once: a teacher whose training was cut is resumed, labels that are whole are kept, and other
    settings than those they were made with are an error. Teachers are trained by the first process alone.

    Args:
        teachers: by task, a recipe's name or config file.
        dataset: config of the data that are labelled, whole: every frame, in the form that the student's validation
            sees.
        folder: where teachers and labels go.
        checkpoints: by task, weights of a teacher that is trained already.
        cfg_options: values by dotted key for all teachers' configs.

    Raises:
        ConfigError: a task is unknown, or no data set of the student reads labels from ``folder``.
        DataError: ``folder`` holds labels of other settings.

    Example:
        dict(
            type="ffplug_fpnmaa.TrainTeachers",
            teachers=dict(va="fpn_maa_parity_va"),
            dataset=dict(type="ffplug_fpnmaa.AffWild2Dataset", data_root="data/Aff-Wild2", unlabelled=True),
            folder="work_dirs/teachers",
        )
    """

    def __init__(
        self,
        teachers: Mapping[str, str],
        dataset: Mapping[str, Any],
        folder: str,
        checkpoints: Mapping[str, str] | None = None,
        cfg_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.tasks = check_tasks("teachers", tuple(teachers))
        self.teachers, self.dataset, self.folder = dict(teachers), copy.deepcopy(dict(dataset)), Path(folder)
        self.checkpoints, self.cfg_options = dict(checkpoints or {}), dict(cfg_options or {})
        self._stand_ins: dict[str, Any] = {}

    def __call__(self, cfg: Config) -> bool:
        """Make sure that the labels are there; returns whether any were written."""
        taught = list(_taught(cfg.to_dict()))
        wanted = {str(self.folder / FILES[task]) for task in self.tasks}
        read = {str(Path(path)) for dataset in taught for path in dataset["teachers"].values()}
        if not wanted & read:
            raise ConfigError(
                f"prepare_data: no data set of the config reads {', '.join(sorted(wanted))}: give the student's data "
                "set teachers=dict(va=..., expr=..., au=...) with these files"
            )
        # Procedural faces, where they took the place of the real ones in the student's config.
        self.dataset["data_root"] = str(taught[0].get("data_root", self.dataset.get("data_root")))
        self._stand_ins = {step["layout"]: step for step in _steps(cfg).values() if "layout" in step}
        written = False
        for task in self.tasks:
            written |= self._label(task)
        return written

    def _label(self, task: str) -> bool:
        path, record = self.folder / FILES[task], self.folder / f"{task}.json"
        settings = json.loads(
            json.dumps(
                dict(
                    teacher=str(self.teachers[task]),
                    checkpoint=self.checkpoints.get(task),
                    dataset=self.dataset,
                    cfg_options=self.cfg_options,
                )
            )
        )
        if path.is_file() and record.is_file():
            found = json.loads(record.read_text(encoding="utf-8"))
            if found != settings:
                changed = ", ".join(sorted(key for key in settings if found.get(key) != settings[key]))
                raise DataError(
                    f"{path}: labels made with other settings ({changed}); choose another folder, or move it away"
                )
            print_log(f"teacher of {task}: {path} is there", logger="current")
            return False
        if not is_main_process():
            raise DataError(f"{path}: the first process has not written it; is the folder shared by all machines?")
        model = self._teacher(task)
        dataset = DATASETS.build(copy.deepcopy(self.dataset))
        print_log(f"teacher of {task}: labels {len(dataset)} samples", logger="current")
        count = write_teacher_labels(path, task, teacher_labels(model, dataset, task))
        with atomic_path(record) as temporary:
            Path(temporary).write_text(json.dumps(settings, indent=1), encoding="utf-8")
        print_log(f"teacher of {task}: wrote {count} labels to {path}", logger="current")
        return True

    def _teacher(self, task: str) -> Any:
        from ffplug.apis.models import build_model

        checkpoint = self.checkpoints.get(task) or str(self._train(task))
        options = self._options()
        config = self._load(task, options)
        model = build_model(config, checkpoint=checkpoint)
        return model.to("cuda" if torch.cuda.is_available() else "cpu")

    def _options(self) -> list[str]:
        return [f"{key}={value!r}" for key, value in self.cfg_options.items()]

    def _load(self, task: str, options: list[str]) -> Config:
        from ffplug.config import load_config, parse_cfg_options

        return load_config(self.teachers[task], parse_cfg_options(options))

    def _train(self, task: str) -> Path:
        """Train a teacher, or what is left of it; returns its weights."""
        from ffplug.engine.run import load_run_config, open_runner, set_resume

        work_dir = self.folder / task
        weights = work_dir / "weights.safetensors"
        if weights.is_file():  # it is written when a training has ended
            return weights
        if torch.distributed.is_initialized():
            raise ConfigError(
                f"the teacher of {task} is not trained yet: run the recipe in one process first, or train it by "
                f"`ffplug train {self.teachers[task]}` and give its weights as checkpoints.{task}"
            )
        print_log(f"teacher of {task}: training by {self.teachers[task]} in {work_dir}", logger="current")
        options = self._options()
        for key, step in _steps(self._load(task, options)).items():
            if step.get("layout") in self._stand_ins:  # procedural faces are the student's, for all
                options.append(f"{key}={self._stand_ins[step['layout']]!r}")
        config = load_run_config(self.teachers[task], options, work_dir, launcher="none")
        set_resume(config, "auto")
        with open_runner(config) as runner:
            runner.train()
        if not weights.is_file():
            raise CheckpointError(f"{weights} is missing after training the teacher of {task}")
        return weights


def _steps(cfg: Config) -> dict[str, Mapping[str, Any]]:
    """The steps before a config's training by their dotted keys."""
    found = cfg.to_dict().get("prepare_data") or []
    if isinstance(found, Mapping):
        return {"prepare_data": found}
    return {f"prepare_data.{place}": step for place, step in enumerate(found)}


def _taught(node: Any) -> Iterator[Mapping[str, Any]]:
    """Every data set of a config that reads teachers' labels."""
    if isinstance(node, Mapping):
        if node.get("type") and isinstance(node.get("teachers"), Mapping):
            yield node
        else:
            for key, value in node.items():
                if key != "prepare_data":
                    yield from _taught(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _taught(value)
