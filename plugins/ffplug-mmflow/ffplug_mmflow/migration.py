"""MMFlow's configs of RAFT and GMA (both branches), translated to FFPlug's: network, data, augmentation, schedule."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ffplug.apis.migration import Migration
from ffplug.errors import ConfigError
from ffplug_mmflow.config_file import read_config
from ffplug_mmflow.registry import MIGRATIONS

WIDTH = 120

_UNUSED = {
    "custom_hooks": "add hooks to `custom_hooks` of the result",
    "custom_imports": "make a plugin of your own types (docs/plugins.md)",
    "fp16": 'set `optim_wrapper.type="ffplug.AmpOptimWrapper"` for mixed precision',
    "resume_from": "use `ffplug train --resume PATH`",
    "seed": "use `ffplug train --seed`",
}
"""Settings that are told and not translated, and what to do instead."""

_SOURCES = {
    "raft_large": "mmflow_raft",
    "gma": "mmflow_gma",
    "gma_position_only": "mmflow_gma_position_only",
    "gma_position_and_content": "mmflow_gma_position_and_content",
}
"""Converter of each model's weights."""

_SYNCHRONISED = ("SyncBN", "MMSyncBN")
_PAIR = [dict(type="ffplug.LoadFlowPair"), dict(type="ffplug.PackFlowInputs")]
_READERS = {"LoadImageFromFile", "LoadAnnotations"}
_PACKERS = {"DefaultFormatBundle", "TestFormatBundle", "Collect", "PackFlowInputs"}
_JITTER = {False: (0.4, 0.4, 0.4, 0.5 / 3.14), True: (0.3, 0.3, 0.3, 0.3 / 3.14)}
_SCHEDULERS = {
    "ConstantLR",
    "CosineAnnealingLR",
    "ExponentialLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "PolyLR",
    "StepLR",
}


@MIGRATIONS.register_module(name="mmflow")
def migrate_mmflow(path: Path) -> Migration:
    """Translate a config file of MMFlow, of the 0.x or the 1.x branch."""
    config = read_config(path)
    try:
        return _Translation(path, config).result()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        text = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{path}: not of the form that MMFlow's configs have ({text})") from error


class _Section:
    """A dict of the config; its keys are taken one after the other, and :meth:`close` tells of those that are left."""

    def __init__(self, values: Mapping[str, Any] | None, name: str, notes: list[str]) -> None:
        self.values = dict(values or {})
        self.name = name
        self.notes = notes

    def take(self, key: str, default: Any = None) -> Any:
        return self.values.pop(key, default)

    def section(self, key: str) -> _Section:
        value = self.take(key)
        if value is not None and not isinstance(value, Mapping):
            raise ConfigError(f"{self.name}.{key}={value!r}: expected a dict")
        return _Section(value, f"{self.name}.{key}", self.notes)

    def drop(self, *keys: str) -> None:
        """Leave out keys whose meaning FFPlug has without them."""
        for key in keys:
            self.values.pop(key, None)

    def expect(self, key: str, value: Any, instead: str) -> None:
        """Take a key that FFPlug fixes at ``value``; another one is told, with what holds ``instead``."""
        found = self.take(key, value)
        if found != value:
            self.note(key, found, instead)

    def require(self, key: str, value: Any) -> None:
        """Take a key that must have ``value``, or be absent, for FFPlug's network to be this one."""
        found = self.take(key, value)
        if found != value:
            raise ConfigError(f"{self.name}.{key}={found!r}: no network of FFPlug is like that; expected {value!r}")

    def note(self, key: str, value: Any, text: str) -> None:
        self.notes.append(f"{self.name}.{key}={_short(value)}: {text}")

    def close(self) -> None:
        for key, value in self.values.items():
            self.note(key, value, "no counterpart, left out")


class _Translation:
    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config
        self.notes: list[str] = []
        self.lines: list[str] = []

    def result(self) -> Migration:
        model = self._model()
        branch = "0.x" if "data" in self.config else "1.x"
        loaders = self._loaders_1() if branch == "1.x" else self._loaders_0()
        if self._loaders(*loaders):
            self._schedule_1() if branch == "1.x" else self._schedule_0()
            self._start(_SOURCES[model])
        for key in ("randomness", "find_unused_parameters"):
            if key in self.config:
                self._assign(key, self.config[key])
        for key, advice in _UNUSED.items():
            if self.config.get(key):
                self.notes.append(f"{key}={_short(self.config[key])}: {advice}")
        name = re.sub(r"[^\w.+-]", "_", self.path.name)  # it becomes source
        bases = ["data.loaders", f"models.{model}", "runtime", "schedule"]
        head = [
            f'"""{name} of MMFlow ({branch}), translated by `ffplug migrate mmflow`."""',
            "",
            "from mmengine.config import read_base",
            "",
            "with read_base():",
            *(f"    from ffplug.configs.{base} import *" for base in bases),
            "",
        ]
        return Migration("\n".join([*head, *self.lines, ""]), tuple(dict.fromkeys(self.notes)))

    def _assign(self, target: str, value: Any) -> None:
        self.lines.append(f"{target} = {render(value, room=WIDTH - len(target) - 3)}")

    def _update(self, target: str, **values: Any) -> None:
        """Write ``target.update(...)`` of the values that are given."""
        given = {key: value for key, value in values.items() if value is not None}
        if given:
            self.lines.append(_call(f"{target}.update", given))

    def _model(self) -> str:
        model = _Section(self.config.get("model"), "model", self.notes)
        kind = str(model.take("type", "nothing")).removeprefix("mmflow.")
        if kind != "RAFT":
            raise ConfigError(
                f"model.type={kind!r}: FFPlug has RAFT and GMA of MMFlow's networks; the others run as "
                "baselines by ffplug_mmflow.MMFlowEstimator (`ffplug list --models` shows mmflow_...)"
            )
        self._encoder(model.section("encoder"), ("IN",))
        norm = self._encoder(model.section("cxt_encoder"), ("BN", "BN2d", *_SYNCHRONISED))
        for key, value in (("num_levels", 4), ("radius", 4), ("cxt_channels", 128), ("h_channels", 128)):
            model.require(key, value)
        decoder = model.section("decoder")
        name, update = self._decoder(decoder)
        frozen = bool(model.take("freeze_bn", False))
        if frozen:
            model.note("freeze_bn", True, "here it holds; in MMFlow it has no effect, all norms stay in training mode")
        elif norm in _SYNCHRONISED:
            self._assign("sync_bn", "torch")
        loss = decoder.section("flow_loss")
        loss.expect("type", "SequenceLoss", "SequenceLoss here")
        self._update('model["losses"][0]', gamma=loss.take("gamma"), max_flow=loss.take("max_flow"))
        loss.close()
        iterations = decoder.take("iters", 12)
        test = model.section("test_cfg")
        test_iterations = test.take("iters") or iterations
        freeze = True if frozen else None
        self._update("model", iterations=iterations, test_iterations=test_iterations, freeze_batch_norm=freeze)
        self._update('model["update"]', **update)
        preprocessor = model.section("data_preprocessor")
        preprocessor.drop("type")
        self._normalisation(preprocessor)
        noise = preprocessor.take("sigma_range")
        if noise:
            preprocessor.drop("clamp_range")
            preprocessor.note("sigma_range", noise, "left out; model.data_preprocessor.noise does it, in 0..255")
        model.drop("train_cfg", "init_cfg")
        for section in (decoder, test, preprocessor, model):
            section.close()
        return name

    @staticmethod
    def _encoder(encoder: _Section, norms: Sequence[str]) -> str:
        """Check an encoder; the type of its norm."""
        for key, value in (("type", "RAFTEncoder"), ("in_channels", 3), ("out_channels", 256), ("net_type", "Basic")):
            encoder.require(key, value)
        norm = encoder.section("norm_cfg")
        norm.drop("requires_grad")
        found = norm.take("type", "BN")
        if found not in norms:
            raise ConfigError(f"{norm.name}.type={found!r}: FFPlug's network has {norms[0]!r} there")
        encoder.drop("init_cfg", "norm_eval")
        norm.close()
        encoder.close()
        return found

    def _decoder(self, decoder: _Section) -> tuple[str, dict[str, Any]]:
        """FFPlug's model, and arguments of its update block."""
        for key, value in (("net_type", "Basic"), ("num_levels", 4), ("radius", 4), ("gru_type", "SeqConv")):
            decoder.require(key, value)
        decoder.require("feat_channels", 256)
        decoder.require("mask_channels", 64)
        lookup = decoder.section("corr_op_cfg")
        for key, value in (("type", "CorrLookup"), ("align_corners", True), ("radius", 4)):
            lookup.require(key, value)
        activation = decoder.section("act_cfg")
        activation.require("type", "ReLU")
        decoder.drop("init_cfg")
        for section in (lookup, activation):
            section.close()
        kind = str(decoder.take("type")).removeprefix("mmflow.")
        if kind == "RAFTDecoder":
            return "raft_large", {}
        if kind != "GMADecoder":
            raise ConfigError(f"model.decoder.type={kind!r}: expected 'RAFTDecoder' or 'GMADecoder'")
        decoder.require("motion_channels", 128)
        heads, size = decoder.take("heads", 1), decoder.take("max_pos_size")
        content = not decoder.take("position_only", False)
        update = {"heads": heads if heads != 1 else None, "max_size": size if size not in (None, 160) else None}
        if size is None:
            return "gma", update
        return ("gma_position_and_content" if content else "gma_position_only"), update

    def _normalisation(self, step: _Section) -> None:
        text = "the networks take RGB in 0..255 and scale it to -1..1 for themselves"
        for key in ("mean", "std"):
            values = step.take(key)
            if values is not None and [float(value) for value in values] != [127.5] * 3:
                step.note(key, values, text)
        for key in ("to_rgb", "bgr_to_rgb"):
            if step.take(key, False):
                step.note(key, True, f"{text}; `ffplug convert` takes MMFlow's weights to want BGR, as MMFlow's own do")

    def _loaders_0(self) -> tuple[Any, ...]:
        data = _Section(self.config.get("data"), "data", self.notes)
        defaults = {key: data.take(key) for key in ("samples_per_gpu", "workers_per_gpu")}
        settings = {}
        for name in ("train", "val", "test"):
            loader = data.section(f"{name}_dataloader")
            settings[name] = {
                "batch_size": loader.take("samples_per_gpu", defaults["samples_per_gpu"] if name == "train" else 1),
                "num_workers": loader.take("workers_per_gpu", defaults["workers_per_gpu"]),
                "drop_last": loader.take("drop_last"),
                "persistent_workers": loader.take("persistent_workers"),
            }
            if not loader.take("shuffle", True) and name == "train":
                loader.note("shuffle", False, "training draws from all pairs in random order here")
            loader.close()
        sets = [data.take(name) for name in ("train", "val", "test")]
        data.close()
        return sets[0], settings["train"], sets[1], settings["val"], sets[2]

    def _loaders_1(self) -> tuple[Any, ...]:
        found = []
        for name in ("train", "val", "test"):
            value = self.config.get(f"{name}_dataloader")
            several = value if isinstance(value, list) else [value] if value else []
            sets, settings = [], {}
            for part in several:
                loader = _Section(part, f"{name}_dataloader", self.notes)
                sets.append(loader.take("dataset"))
                keys = ("batch_size", "num_workers", "drop_last", "persistent_workers", "pin_memory")
                settings = {key: loader.take(key) for key in keys}
                loader.drop("sampler", "collate_fn")
                loader.close()
            found += [sets or None, settings]
        return tuple(found[:5])

    def _loaders(self, train: Any, settings: dict, val: Any, val_settings: dict, test: Any) -> bool:
        """Write the loaders; whether there is one for training."""
        if train is None:
            for key in ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler"):
                self._assign(key, None)
        else:
            self._update("train_dataloader", **settings)
            batch = settings.get("batch_size")
            gpus = re.search(r"_(\d+)xb?(\d+)_", self.path.name)
            told = f"; the file's name says {gpus[1]} GPUs" if gpus else ""
            self.notes.append(f"train batch_size={batch}: pairs for each GPU, as in MMFlow{told}")
            self._assign('train_dataloader["dataset"]', self._mixture(train, True))
        tested = self._mixture(test, False) if test else None
        checked = self._mixture(val, False) if val else tested
        if checked is None:
            for key in ("val_dataloader", "val_cfg", "val_evaluator"):
                self._assign(key, None)
        else:
            self._update("val_dataloader", **val_settings)
            self._assign('val_dataloader["dataset"]', checked)
        if tested is not None and tested != checked:
            self._assign("_test", tested)
            self.lines.append("test_dataloader = dict(val_dataloader, dataset=_test)")
            self.lines += ["test_evaluator = val_evaluator", "test_cfg = dict()"]
        return train is not None

    def _mixture(self, config: Any, training: bool) -> dict[str, Any]:
        """One data set, or the mixture of several."""
        parts: list[tuple[int, dict[str, Any]]] = []
        for times, part in self._parts(config, training):
            last_times, last = parts[-1] if parts else (0, {})
            passes = (last.get("render"), part.get("render"))
            if last_times == times and passes == ("clean", "final") and {**last, "render": "final"} == part:
                parts[-1] = (times, {**last, "render": "both"})
            else:
                parts.append((times, part))
        if not parts:
            raise ConfigError("FFPlug has none of its data sets")
        if len(parts) == 1 and parts[0][0] == 1:
            return parts[0][1]
        times, sets = zip(*parts, strict=True)
        return dict(type="ffplug.MixDataset", times=list(times), datasets=list(sets))

    def _parts(self, config: Any, training: bool) -> Iterable[tuple[int, dict[str, Any]]]:
        if isinstance(config, list | tuple):
            for item in config:
                yield from self._parts(item, training)
            return
        where = "train" if training else "test"
        section = _Section(config, f"{where} {config.get('type')}", self.notes)
        kind = section.take("type")
        if kind == "RepeatDataset":
            repeated = section.take("times", 1)
            yield from ((repeated * times, part) for times, part in self._parts(section.take("dataset"), training))
        elif kind == "ConcatDataset":
            yield from self._parts(section.take("datasets"), training)
            section.drop("separate_eval", "lazy_init", "ignore_keys")
        else:
            part = self._dataset(str(kind), section, training)
            if part is not None:
                yield 1, part
        section.close()

    def _dataset(self, kind: str, section: _Section, training: bool) -> dict[str, Any] | None:
        """FFPlug's config of one data set, or None where it has none (which is told)."""
        root = section.take("data_root")
        testing = bool(section.take("test_mode", False))
        pipeline = section.take("pipeline") or []
        section.drop("metainfo", "lazy_init", "serialize_data")
        options: dict[str, Any]
        sparse = kind in ("KITTI2012", "KITTI2015", "HD1K")
        if kind == "FlyingChairs":
            options = dict(split="val" if testing else "train", split_file=section.take("split_file"))
        elif kind == "Sintel":
            options = dict(render=section.take("pass_style", "clean"), scenes=section.take("scene"))
        elif kind == "FlyingThings3D":
            scene = section.take("scene", "left") or ("left", "right")
            options = dict(
                render=section.take("pass_style", "clean"),
                split="test" if testing else "train",
                cameras=scene,
                directions=self._directions(section),
            )
        elif sparse:
            options = {}
        else:
            section.values.clear()
            self.notes.append(f"{section.name}: FFPlug has no such data set, left out")
            return None
        options = {key: value for key, value in options.items() if value is not None}
        result = dict(type=f"ffplug.{kind}Dataset", data_root=root, **options)
        if training:
            result["pipeline"] = self._augmentation(pipeline, sparse, section.name)
        else:
            self._test_steps(pipeline, section.name)
        return result

    @staticmethod
    def _directions(section: _Section) -> list[str] | None:
        """Both directions of time where that is asked for (0.x without saying so), into the future else."""
        both = ["into_future", "into_past"]
        if "double" in section.values or "direction" not in section.values:
            return both if section.take("double", True) else ["into_future"]
        direction = section.take("direction")
        return {"forward": ["into_future"], "backward": ["into_past"]}.get(str(direction), both)

    def _augmentation(self, pipeline: Sequence[Mapping[str, Any]], sparse: bool, name: str) -> list[dict[str, Any]]:
        steps: dict[str, _Section] = {}
        flips: dict[str, float] = {}
        for config in pipeline:
            step = _Section(config, f"{name} {config.get('type')}", self.notes)
            kind = step.take("type")
            if kind in _READERS | _PACKERS:
                continue
            if kind == "RandomFlip":
                flips[step.take("direction", "horizontal")] = step.take("prob", 0.5)
            elif kind == "Normalize":
                self._normalisation(step)
            elif kind in ("ColorJitter", "Erase", "SpacialTransform", "RandomCrop", "Validation"):
                steps[kind] = step
                continue
            else:
                self.notes.append(f"{step.name}: no counterpart, left out")
                continue
            step.close()
        if not steps:
            return list(_PAIR)
        augment: dict[str, Any] = dict(type="ffplug.RAFTSparseAugment" if sparse else "ffplug.RAFTDenseAugment")
        augment |= self._scale(steps, sparse, name)
        augment |= self._flip(flips, sparse, name)
        augment |= self._colour(steps.get("ColorJitter"), sparse)
        erase = steps.get("Erase") or _Section({"prob": 0.0}, f"{name} Erase", self.notes)
        erase.expect("prob", 0.5, "0.5 here")
        erase.expect("max_num", 3, "one or two rectangles here")
        sides = tuple(erase.take("bounds", (50, 100)))
        augment |= {"eraser_sides": sides} if sides != (50, 100) else {}
        validation = steps.get("Validation")
        if validation is not None:
            limit = validation.take("max_flow", 1000.0)
            if sparse:
                validation.note("max_flow", limit, "sparse flow is valid where it is known")
            elif limit != 1000:
                augment["max_flow"] = limit
        for step in steps.values():
            step.close()
        return [_PAIR[0], augment, _PAIR[1]]

    @staticmethod
    def _scale(steps: Mapping[str, _Section], sparse: bool, name: str) -> dict[str, Any]:
        scale, crop = steps.get("SpacialTransform"), steps.get("RandomCrop")
        if scale is None:
            if crop is None:
                raise ConfigError(f"{name}: its pipeline neither scales nor crops, so it can't train on batches")
            return dict(crop_size=tuple(crop.take("crop_size")), min_scale=0.0, max_scale=0.0)
        size = tuple(scale.take("crop_size"))
        if crop is not None:
            crop.expect("crop_size", scale.values.get("crop_size", size), f"the crop is {size}")
            crop.drop("crop_size")
        scale.expect("spacial_prob", 0.8, "0.8 here")
        if sparse:
            scale.drop("max_stretch")
            scale.expect("stretch_prob", 0.0, "sparse flow is scaled alike in both axes here, as RAFT's own code does")
        else:
            scale.expect("stretch_prob", 0.8, "0.8 here")
            scale.expect("max_stretch", 0.2, "0.2 here")
        return dict(crop_size=size, min_scale=scale.take("min_scale", -0.2), max_scale=scale.take("max_scale", 0.5))

    def _flip(self, flips: Mapping[str, float], sparse: bool, name: str) -> dict[str, Any]:
        across, down = flips.get("horizontal", 0), flips.get("vertical", 0)
        if across not in (0, 0.5):
            self.notes.append(f"{name} RandomFlip.prob={across}: 0.5 here for left-right")
        if down and sparse:
            self.notes.append(f"{name} RandomFlip(direction='vertical'): sparse flow is not turned upside down here")
        elif bool(down) != bool(across) and not sparse:
            self.notes.append(f"{name} RandomFlip: here both directions or none, with probability 0.5 and 0.1")
        elif down not in (0, 0.1):
            self.notes.append(f"{name} RandomFlip.prob={down}: 0.1 here for upside down")
        return dict(do_flip=bool(across or (down and not sparse)))

    @staticmethod
    def _colour(jitter: _Section | None, sparse: bool) -> dict[str, Any]:
        if jitter is None:
            return dict(jitter=None)
        jitter.expect("asymmetric_prob", 0.0 if sparse else 0.2, f"{0.0 if sparse else 0.2} here")
        values = tuple(jitter.take(key, 0.0) for key in ("brightness", "contrast", "saturation", "hue"))
        return {} if values == _JITTER[sparse] else dict(jitter=values)

    def _test_steps(self, pipeline: Sequence[Mapping[str, Any]], name: str) -> None:
        for config in pipeline:
            step = _Section(config, f"{name} {config.get('type')}", self.notes)
            kind = step.take("type")
            if kind in _READERS | _PACKERS:
                continue
            if kind == "Normalize":
                self._normalisation(step)
            elif kind == "InputPad":
                step.expect("exponent", 3, "frames are padded to multiples of 8 here")
                step.expect("position", "center", "padding is split over both sides here")
                step.expect("mode", "edge", "edges are repeated here")
            else:
                self.notes.append(f"{step.name}: no counterpart, left out")
                continue
            step.close()

    def _schedule_0(self) -> None:
        config = _Section(self.config, "", self.notes)
        optimizer = dict(config.take("optimizer") or {})
        for key in ("paramwise_cfg", "constructor"):
            if key in optimizer:
                self.notes.append(f"optimizer.{key}={_short(optimizer.pop(key))}: no counterpart, left out")
        clip = (config.take("optimizer_config") or {}).get("grad_clip")
        self._optimizer(optimizer, clip, amp=bool(config.take("fp16")))
        runner, limit = dict(config.take("runner") or {}), None
        if runner:
            limit = runner.get("max_iters")
            if limit is None:
                self.notes.append(f"runner={_short(runner)}: FFPlug counts iterations; set train_cfg.max_iters")
        policy = dict(config.take("lr_config") or {})
        name = policy.pop("policy", None)
        if name == "OneCycle":
            policy["eta_max"] = policy.pop("max_lr", optimizer.get("lr"))
            policy.setdefault("total_steps", limit)
            self._assign("param_scheduler", dict(type="OneCycleLR", by_epoch=False, **policy))
        elif name == "step" and not policy.pop("by_epoch", True):
            steps = policy.pop("step")
            milestones = steps if isinstance(steps, list) else [steps]
            gamma = policy.pop("gamma", 0.1)
            self._assign(
                "param_scheduler", dict(type="MultiStepLR", by_epoch=False, milestones=milestones, gamma=gamma)
            )
            if policy:
                self.notes.append(f"lr_config {_short(policy)}: no counterpart, left out")
        elif name is not None:
            self.notes.append(f"lr_config.policy={name!r}: not translated; set param_scheduler")
        evaluation = config.section("evaluation")
        self._update("train_cfg", max_iters=limit, val_interval=evaluation.take("interval"))
        checkpoint = config.section("checkpoint_config")
        self._update('default_hooks["checkpoint"]', interval=checkpoint.take("interval"))
        log = config.section("log_config")
        self._update('default_hooks["logger"]', interval=log.take("interval"))
        evaluation.drop("metric", "by_epoch")
        checkpoint.drop("by_epoch")
        log.drop("hooks")
        for section in (evaluation, checkpoint, log):
            section.name = section.name.lstrip(".")
            section.close()

    def _schedule_1(self) -> None:
        config = _Section(self.config, "", self.notes)
        wrapper = config.section("optim_wrapper")
        kind = str(wrapper.take("type", "OptimWrapper"))
        self._optimizer(dict(wrapper.take("optimizer") or {}), wrapper.take("clip_grad"), amp=kind == "AmpOptimWrapper")
        scheduler = config.take("param_scheduler")
        several = scheduler if isinstance(scheduler, list) else [scheduler] if scheduler else []
        unknown = [item["type"] for item in several if item.get("type") not in _SCHEDULERS]
        if unknown:
            self.notes.append(f"param_scheduler {', '.join(unknown)}: not translated; set param_scheduler")
        elif several:
            self._assign("param_scheduler", scheduler)
        loop = config.section("train_cfg")
        limit = loop.take("max_iters")
        if limit is None:
            self.notes.append(
                f"train_cfg={_short(self.config.get('train_cfg'))}: FFPlug counts iterations; set max_iters"
            )
        self._update("train_cfg", max_iters=limit, val_interval=loop.take("val_interval"))
        loop.drop("by_epoch", "type")
        hooks = config.section("default_hooks")
        for name in ("checkpoint", "logger"):
            hook = hooks.section(name)
            self._update(f'default_hooks["{name}"]', interval=hook.take("interval"))
            hook.drop("type", "by_epoch", "log_metric_by_epoch")
            hook.close()
        hooks.drop("timer", "param_scheduler", "sampler_seed", "visualization", "runtime_info")
        for section in (wrapper, loop, hooks):
            section.name = section.name.lstrip(".")
            section.close()

    def _optimizer(self, optimizer: dict[str, Any], clip: Any, amp: bool) -> None:
        """Optimiser, clipping and precision; FFPlug's own recipes use mixed precision, MMFlow's do not."""
        self._assign('optim_wrapper["type"]', "ffplug.AmpOptimWrapper" if amp else "OptimWrapper")
        if optimizer:
            self._assign('optim_wrapper["optimizer"]', optimizer)
        self._assign('optim_wrapper["clip_grad"]', clip or None)

    def _start(self, source: str) -> None:
        """Where training starts from: MMFlow's weights are put into FFPlug's form by hand, nothing is downloaded."""
        start = (self.config.get("load_from") or "").strip()
        if start:
            weights = f"weights/{Path(start).stem}.safetensors"
            self._assign("load_from", weights)
            command = f"ffplug convert {Path(start).name} {weights} --from {source}"
            self.notes.append(f"load_from={start!r}: get the file and convert it, `{command}`")


def render(value: Any, indent: int = 0, room: int = WIDTH) -> str:
    """Python source of plain data, dicts as calls of ``dict``, in lines of at most ``WIDTH`` where that can be.

    Args:
        value: dicts, lists, tuples, strings and numbers.
        indent: of the line that it begins in.
        room: characters that are left in that line.
    """
    flat = _flat(value)
    if len(flat) <= room - indent or not isinstance(value, Mapping | list | tuple) or not value:
        return flat
    pad = " " * (indent + 4)
    if isinstance(value, Mapping):
        named = all(map(_is_name, value))
        heads = [f"{key}=" if named else f"{_flat(key)}: " for key in value]
        items, brackets = list(value.values()), ("dict(", ")") if named else ("{", "}")
    else:
        heads, items = [""] * len(value), list(value)
        brackets = ("[", "]") if isinstance(value, list) else ("(", ")")
    rows = [
        f"{pad}{head}{render(item, indent + 4, WIDTH - len(head) - 1)},"
        for head, item in zip(heads, items, strict=True)
    ]
    return "\n".join([brackets[0], *rows, " " * indent + brackets[1]])


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        if all(map(_is_name, value)):
            return "dict(" + ", ".join(f"{key}={_flat(item)}" for key, item in value.items()) + ")"
        return "{" + ", ".join(f"{_flat(key)}: {_flat(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flat, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_flat, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, str) and '"' not in value and "\\" not in value and value.isprintable():
        return f'"{value}"'
    return repr(value)


def _is_name(key: Any) -> bool:
    return isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key)


def _call(function: str, arguments: Mapping[str, Any]) -> str:
    """Source of a call, or of an assignment that ends in one, by keywords."""
    return function + render(dict(arguments), room=WIDTH - len(function) + 4).removeprefix("dict")


def _short(value: Any) -> str:
    text = _flat(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
