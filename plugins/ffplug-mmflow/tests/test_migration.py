"""MMFlow's configs are read as data and translated; what they hold is MMFlow's own files (mmflow_configs)."""

import json
from pathlib import Path

import pytest
import torch
from ffplug_mmflow.config_file import read_config
from mmengine.config import Config

import ffplug
from ffplug.apis.migration import migrate_config
from ffplug.config import load_config, validate_config
from ffplug.datasets.procedural import Recipe, write_procedural
from ffplug.errors import ConfigError

CONFIGS = Path(__file__).parent / "mmflow_configs"
MIXED = CONFIGS / "0.x" / "raft" / "raft_8x2_100k_mixed_368x768.py"
KITTI = CONFIGS / "0.x" / "gma" / "gma_plus-p_8x2_50k_kitti2015_288x960.py"
TESTED = CONFIGS / "0.x" / "raft" / "raft_kitti_test.py"
THINGS = CONFIGS / "1.x" / "raft" / "raft_8xb2_100k_flyingthings3d-400x720.py"
CHAIRS = CONFIGS / "1.x" / "gma" / "gma-p-only_8xb2_120k_flyingchairs-368x496.py"
TRANSLATED = (MIXED, KITTI, TESTED, THINGS, CHAIRS)


def plain(value):
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def translate(path, tmp_path):
    """The translation as a loaded config, and its notes as one text."""
    result = migrate_config("mmflow", path)
    target = tmp_path / "translated.py"
    target.write_text(result.text)
    config = load_config(target)
    validate_config(config)
    return config, "\n".join(result.notes)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*/*/*.py")), ids=lambda path: path.stem)
def test_reading_gives_what_running_gives(path):
    expected = Config.fromfile(str(path), import_custom_modules=False).to_dict()
    assert plain(read_config(path)) == plain(expected)


@pytest.mark.parametrize("path", TRANSLATED, ids=lambda path: path.stem)
def test_the_result_loads_and_builds(path, tmp_path):
    config, _ = translate(path, tmp_path)
    with torch.device("meta"):
        ffplug.build_model(config)
    assert all(len(line) <= 120 for line in (tmp_path / "translated.py").read_text().splitlines())


def test_a_mixture_keeps_its_parts(tmp_path):
    config, notes = translate(MIXED, tmp_path)
    mixture = config.train_dataloader.dataset
    kinds = [part.type for part in mixture.datasets]
    assert kinds == [
        "ffplug.SintelDataset",
        "ffplug.KITTI2015Dataset",
        "ffplug.FlyingThings3DDataset",
        "ffplug.HD1KDataset",
    ]
    assert mixture.times == [100, 200, 1, 5]
    assert [part.data_root for part in mixture.datasets] == [
        "data/Sintel",
        "data/kitti2015",
        "data/flyingthings3d",
        "data/hd1k",
    ]
    assert mixture.datasets[0].render == "both" and mixture.datasets[2].render == "clean"
    augment = [part.pipeline[1] for part in mixture.datasets]
    scales = [(step.min_scale, step.max_scale) for step in augment]
    assert scales == [(-0.2, 0.6), (-0.3, 0.5), (-0.4, 0.8), (-0.5, 0.2)]
    assert all(step.crop_size == (368, 768) and step.do_flip for step in augment)
    assert "jitter" not in augment[0] and augment[1].jitter == pytest.approx((0.4, 0.4, 0.4, 0.5 / 3.14))
    assert "train KITTI2015 RandomFlip(direction='vertical'): sparse flow" in notes
    assert "train HD1K SpacialTransform.stretch_prob=0.8" in notes


def test_network_and_schedule_of_0x(tmp_path):
    config, notes = translate(MIXED, tmp_path)
    assert config.model.freeze_batch_norm and config.model.test_iterations == 32 and config.model.iterations == 12
    assert config.model.losses[0].gamma == 0.85
    assert config.optim_wrapper.type == "OptimWrapper" and config.optim_wrapper.clip_grad.max_norm == 1.0
    assert config.optim_wrapper.optimizer.to_dict() == {
        "type": "AdamW",
        "lr": 0.000125,
        "betas": (0.9, 0.999),
        "eps": 1e-08,
        "weight_decay": 0.00001,
        "amsgrad": False,
    }
    assert config.param_scheduler.to_dict() == {
        "type": "OneCycleLR",
        "by_epoch": False,
        "eta_max": 0.000125,
        "total_steps": 100100,
        "pct_start": 0.05,
        "anneal_strategy": "linear",
    }
    assert config.train_cfg.max_iters == 100_000 and config.train_cfg.val_interval == 10_000
    assert config.default_hooks.checkpoint.interval == 10_000 and config.default_hooks.logger.interval == 50
    assert config.train_dataloader.batch_size == 2 and config.train_dataloader.num_workers == 5
    assert config.load_from == "weights/raft_8x2_100k_flyingthings3d_400x720.safetensors"
    assert "--from mmflow_raft" in notes and "the file's name says 8 GPUs" in notes and "model.freeze_bn=True" in notes


def test_network_and_schedule_of_1x(tmp_path):
    config, notes = translate(THINGS, tmp_path)
    things = config.train_dataloader.dataset
    assert things.type == "ffplug.FlyingThings3DDataset" and things.render == "both"
    assert things.directions == ["into_future", "into_past"] and things.cameras == "left"
    assert config.val_dataloader.dataset.to_dict() == {
        "type": "ffplug.SintelDataset",
        "data_root": "data/Sintel",
        "render": "both",
    }
    assert config.optim_wrapper.optimizer.lr == 0.000125 and config.optim_wrapper.optimizer.weight_decay == 0.00001
    assert config.param_scheduler.eta_max == 0.000125 and config.param_scheduler.total_steps == 100_100
    assert config.train_cfg.max_iters == 100_000
    assert "ffplug convert raft_8x2_100k_flyingchairs.pth" in notes


def test_variants_of_gma(tmp_path):
    config, notes = translate(KITTI, tmp_path)
    assert config.model["update"].content and config.model["update"].position
    assert config.train_cfg.max_iters == 50_000 and config.train_dataloader.dataset.pipeline[1].do_flip is False
    assert "--from mmflow_gma_position_and_content" in notes
    config, _ = translate(CHAIRS, tmp_path)
    assert config.model["update"].position and not config.model["update"].content
    assert config.sync_bn == "torch" and config.val_dataloader.dataset.split == "val"
    assert config.train_dataloader.dataset.split_file == "data/FlyingChairs_release/FlyingChairs_train_val.txt"


def test_a_config_for_testing_alone(tmp_path):
    config, notes = translate(TESTED, tmp_path)
    assert config.train_dataloader is None and config.train_cfg is None and config.optim_wrapper is None
    assert config.val_dataloader.dataset.type == "ffplug.KITTI2015Dataset"
    assert "test KITTI2015 Normalize.std=[255.0, 255.0, 255.0]" in notes


def changed(tmp_path, text, base=MIXED):
    path = tmp_path / "mine_8x2_things.py"
    path.write_text(f"_base_ = [{str(base)!r}]\n{text}\n")
    return path


def test_own_settings_are_told_or_kept(tmp_path):
    text = """
optimizer = dict(_delete_=True, type='SGD', lr=1e-3, paramwise_cfg=dict(bias_lr_mult=2.))
lr_config = dict(_delete_=True, policy='step', by_epoch=False, step=[1000, 2000], gamma=0.5, warmup='linear')
fp16 = dict(loss_scale=512.)
custom_hooks = [dict(type='MyHook')]
custom = 3
model = dict(test_cfg=dict(iters=20), decoder=dict(my_option=1), data_preprocessor=dict(type='X', mean=[0, 0, 0]))
img_norm = dict(mean=[0., 0., 0.], std=[255., 255., 255.], to_rgb=True)
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
    dict(type='PhotoMetricDistortion', contrast=2),
    dict(type='Erase', prob=0.3, bounds=[20, 30], max_num=3),
    dict(type='SpacialTransform', spacial_prob=0.8, stretch_prob=0.5, crop_size=(64, 96), min_scale=0., max_scale=1.),
    dict(type='RandomFlip', prob=0.4, direction='horizontal'),
    dict(type='Validation', max_flow=300.), dict(type='Normalize', **img_norm), dict(type='DefaultFormatBundle')]
data = dict(train=dict(_delete_=True, type='RepeatDataset', times=3, dataset=dict(
    type='ConcatDataset', datasets=[
        dict(type='Sintel', data_root='a', pass_style='final', scene=['alley_1'], pipeline=pipeline),
        dict(type='ChairsSDHom', data_root='b', pipeline=pipeline)])),
    test=dict(_delete_=True, type='KITTI2015', data_root='k', test_mode=True, pipeline=[
        dict(type='LoadImageFromFile'), dict(type='InputPad', exponent=6, position='left')]))
"""
    config, notes = translate(changed(tmp_path, text), tmp_path)
    assert config.optim_wrapper.type == "ffplug.AmpOptimWrapper"
    assert config.optim_wrapper.optimizer.to_dict() == {"type": "SGD", "lr": 1e-3}
    assert config.param_scheduler.milestones == [1000, 2000] and config.param_scheduler.gamma == 0.5
    assert config.model.test_iterations == 20
    part = config.train_dataloader.dataset
    assert part.times == [3] and part.datasets[0].scenes == ["alley_1"] and part.datasets[0].render == "final"
    augment = part.datasets[0].pipeline[1]
    assert augment.jitter is None and augment.eraser_sides == (20, 30) and augment.max_flow == 300
    assert config.test_dataloader.dataset.to_dict() == {"type": "ffplug.KITTI2015Dataset", "data_root": "k"}
    assert config.val_dataloader.dataset.type == "ffplug.SintelDataset" and config.test_dataloader.batch_size == 1
    for told in (
        "test KITTI2015 InputPad.exponent=6",
        'test KITTI2015 InputPad.position="left"',
        "optimizer.paramwise_cfg",
        "warmup",
        "custom_hooks=",
        "fp16=",
        "model.decoder.my_option=1",
        "model.data_preprocessor.mean=[0, 0, 0]",
        "train Sintel PhotoMetricDistortion: no counterpart",
        "train Sintel Erase.prob=0.3",
        "train Sintel SpacialTransform.stretch_prob=0.5",
        "train Sintel RandomFlip.prob=0.4",
        "train Sintel Normalize.to_rgb=True",
        "train ChairsSDHom: FFPlug has no such data set",
    ):
        assert told in notes, told


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("import os", "line 2: `import os` is code"),
        ("lr = open('secret').read()", "is code"),
        ("lr = [x for x in 'ab']", "is code"),
        ("lr = unknown * 2", "`unknown` is not assigned above"),
        ("lr = (1,) * 10**9", "is code"),
        ("lr = (1,) * 1000000000", "is beyond what a config needs"),
        ("lr = 1 / 0", "ZeroDivisionError"),
        ("lr = dict(**[1])", "is no dict"),
        ("model = dict(", "not a config in Python"),
        ("model = dict(decoder=dict(radius=3))", "model.decoder.radius=3: no network of FFPlug is like that"),
        ("model = dict(encoder=dict(net_type='Small'))", "model.encoder.net_type='Small'"),
        ("model = dict(cxt_encoder=dict(norm_cfg=dict(type='GN')))", "norm_cfg.type='GN'"),
        ("model = dict(_delete_=True, type='PWCNet')", "run as baselines"),
        ("model = 3", "not of the form"),
        ("data = dict(train=dict(_delete_=True, type='ChairsSDHom'))", "none of its data sets"),
    ],
)
def test_what_cannot_be_translated_is_refused(tmp_path, text, complaint):
    with pytest.raises(ConfigError) as refused:
        migrate_config("mmflow", changed(tmp_path, text))
    assert complaint in str(refused.value) and "mine_8x2_things.py" in str(refused.value)


def test_a_file_s_name_is_no_source(tmp_path):
    path = tmp_path / '"""; raise SystemExit("run") #.py'
    path.write_text(f"_base_ = [{str(MIXED)!r}]")
    config, _ = translate(path, tmp_path)
    assert config.train_cfg.max_iters == 100_000


def test_nothing_of_the_file_runs(tmp_path, cli):
    path = changed(tmp_path, "open('pwned', 'w').write('x')")
    done = cli("migrate", "mmflow", path, cwd=tmp_path)
    assert done.returncode == 2 and "line 2" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "pwned").exists()


def test_bases_that_go_in_circles_or_lead_nowhere(tmp_path):
    (tmp_path / "a.py").write_text("_base_ = 'b.py'")
    (tmp_path / "b.py").write_text("_base_ = ['a.py']")
    with pytest.raises(ConfigError, match="inherits from itself"):
        read_config(tmp_path / "a.py")
    (tmp_path / "b.py").write_text("_base_ = ['mmflows::raft/raft.py']")
    with pytest.raises(ConfigError, match="package 'mmflows' is not installed"):
        read_config(tmp_path / "a.py")
    (tmp_path / "c.py").write_text("_base_ = 'gone.py'")
    with pytest.raises(ConfigError, match=r"base config gone\.py does not exist"):
        read_config(tmp_path / "c.py")


def test_values_of_bases(tmp_path):
    (tmp_path / "a.py").write_text("lr = 0.5\nmodel = dict(a=dict(b=1, c=2), d=3)\nsteps = [1, 2]")
    (tmp_path / "b.py").write_text(
        "'''A docstring.'''\n_base_ = 'a.py'\nmodel = dict(a=dict(_delete_=True, e=_base_.lr), f={{_base_.model.d}})\n"
        "more = [*_base_.steps, -3, not True, {'x': 1, **dict(y=2)}['y']]"
    )
    assert read_config(tmp_path / "b.py") == {
        "lr": 0.5,
        "model": {"a": {"e": 0.5}, "d": 3, "f": 3},
        "steps": [1, 2],
        "more": [1, 2, -3, False, 2],
    }


def test_the_command_line(tmp_path, cli):
    done = cli("migrate", "mmflow", MIXED, "--out", "mine/raft.py", cwd=tmp_path)
    assert done.returncode == 0 and "mine/raft.py: written" in done.stdout
    assert "settings have no counterpart or mean something else" in done.stderr and "- load_from=" in done.stderr
    shown = cli("config", "mine/raft.py", cwd=tmp_path)
    assert shown.returncode == 0 and "ffplug.HD1KDataset" in shown.stdout, shown.stderr
    printed = cli("migrate", "mmflow", MIXED, cwd=tmp_path)
    assert printed.stdout == (tmp_path / "mine" / "raft.py").read_text()


@pytest.mark.parametrize(
    "system, config, complaint",
    [
        ("mmflw", MIXED, "did you mean 'mmflow'"),
        ("detectron", MIXED, "expected one of mmflow"),
        ("mmflow", "gone.py", "config gone.py does not exist"),
    ],
)
def test_wrong_arguments(system, config, complaint):
    with pytest.raises(ConfigError, match=complaint):
        migrate_config(system, config)


def test_without_the_plugin_the_command_says_what_to_install(tmp_path, cli):
    done = cli("migrate", "mmflow", MIXED, cwd=tmp_path, FFPLUG_DISABLE="mmflow")
    assert done.returncode == 2 and "pip install ffplug-mmflow" in done.stderr


def test_a_translated_recipe_trains(tmp_path, cli):
    """On procedural data in the layout that MMFlow's config names, with a crop that a test can afford."""
    write_procedural(Recipe("kitti2015", 3, 2, (160, 224), 0, "standard", "analytic"), tmp_path / "data" / "kitti2015")
    (tmp_path / "gma.py").write_text(migrate_config("mmflow", KITTI).text)
    options = {
        "load_from": None,
        "model.iterations": 2,
        "model.test_iterations": 2,
        "train_dataloader.batch_size": 1,
        "train_dataloader.num_workers": 0,
        "train_dataloader.dataset.pipeline.1.crop_size": "(128,128)",
        "val_dataloader.num_workers": 0,
        "train_cfg.max_iters": 2,
        "train_cfg.val_interval": 2,
        "default_hooks.checkpoint.interval": 2,
    }
    settings = [f"{key}={value}" for key, value in options.items()]
    done = cli("train", "gma.py", "--cfg-options", *settings, cwd=tmp_path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = json.loads((tmp_path / "work_dirs" / "gma" / "metrics.json").read_text())
    assert "procedural" in json.dumps(metrics)
