"""Configs inherit across packages, and every mistake in one is told before anything is built."""

import pytest
import torch
from mmengine.config import Config

import ffplug
from ffplug.config import apply_device_fragment, config_origin, load_config, parse_cfg_options, validate_config
from ffplug.errors import ConfigError

BASE = "from mmengine.config import read_base\n\nwith read_base():\n    from {base} import *\n\n"


def write(folder, text, base="ffplug.configs.models.raft_small", name="mine.py"):
    path = folder / name
    path.write_text(BASE.format(base=base) + text)
    return path


def test_inherits_across_packages_and_survives_a_dump(tmp_path):
    path = write(tmp_path, "model.update(iterations=5)\n")
    config = load_config(path)
    assert config.model.iterations == 5 and config.model.type == "ffplug.RecurrentFlowEstimator"
    validate_config(config)
    config.dump(tmp_path / "dumped.py")
    again = load_config(tmp_path / "dumped.py")
    validate_config(again)
    assert again.model.to_dict() == config.model.to_dict()
    assert Config.fromfile(path).model.iterations == 5  # plain MMEngine reads it too


def test_dashes_and_underscores_are_alike(tmp_path):
    path = write(tmp_path, "", name="my_net.py")
    assert load_config(tmp_path / "my-net.py").filename == str(path)
    assert load_config("raft-small").model.type == load_config("raft_small").model.type


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle = dict(iterations=3)\n", r"unknown key 'modle' in the config; did you mean 'model'"),
        (
            "model['cost'].update(type='ffplug.AllPairsCorelation')\n",
            r"model.cost.type: ffplug has no type .*did you mean 'AllPairsCorrelation'",
        ),
        (
            "model['cost'].update(type='ffplug_nowhere.Cost')\n",
            r"model.cost.type=ffplug_nowhere.Cost: plugin ffplug-nowhere is not installed: `pip install ffplug-",
        ),
        (
            "model['cost'].update(levles=3)\n",
            r"model.cost.levles: ffplug.AllPairsCorrelation has no such argument; did you mean 'levels'",
        ),
        (
            "optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdmaW'))\n",
            r"optim_wrapper.optimizer.type: unknown type 'AdmaW'; did you mean .*'AdamW'",
        ),
        (
            "model['cost'].update(type='AllPairsCorrelation')\n",
            r"model.cost.type: unknown type .*did you mean 'ffplug.AllPairsCorrelation'",
        ),
        ("model = dict(\n", r"mine.py, line 6: .* was never closed"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        validate_config(load_config(write(tmp_path, text)))


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (
            "ffplug.configs.models.raft_smal",
            r"mine.py: base config ffplug.configs.models.raft_smal does not exist .*did you mean 'raft_small'",
        ),
        (
            "ffplug_nowhere.configs.net",
            r"mine.py: base config ffplug_nowhere.configs.net: plugin ffplug-nowhere is not installed.*pip install",
        ),
        (".gone", r"base config .gone does not exist"),
    ],
)
def test_missing_base_is_named(tmp_path, base, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, "", base=base))


def test_missing_file_is_named(tmp_path):
    write(tmp_path, "", name="raft.py")
    with pytest.raises(ConfigError, match=r"raftt.py does not exist; did you mean 'raft.py'"):
        load_config(tmp_path / "raftt.py")
    with pytest.raises(ConfigError, match=r"named 'raft_smoll'; did you mean 'raft_small'"):
        load_config("raft_smoll")


def test_helper_variables_start_with_an_underscore(tmp_path):
    path = write(tmp_path, "_width = 7\nmodel.update(iterations=_width)\n")
    config = load_config(path)
    validate_config(config)
    assert config.model.iterations == 7


def test_cfg_options(tmp_path):
    options = parse_cfg_options(["model.iterations=9", "model.cost.on_demand=True", "model.tile=None"])
    config = load_config("raft_small", options)
    assert config.model.iterations == 9 and config.model.tile is None
    with pytest.raises(ConfigError, match="expected KEY=VALUE"):
        parse_cfg_options(["model.iterations"])
    with pytest.raises(ConfigError, match=r"model.itertions: .* did you mean 'iterations'"):
        validate_config(load_config("raft_small", {"model.itertions": 3}))


def test_origin_names_the_file_of_each_value(tmp_path):
    path = write(tmp_path, "model['update'].update(heads=2)\n", base="ffplug.configs.models.gma")
    origin = config_origin(path, {"model.iterations": 3})
    assert origin["model.update.heads"] == str(path)
    assert origin["model.update.type"].endswith("models/gma.py")
    assert origin["model.cost.levels"].endswith("models/raft_large.py")
    assert origin["model.iterations"] == "--cfg-options"


@pytest.mark.skipif(torch.cuda.is_available(), reason="the fragment is for machines without a GPU")
def test_device_fragment(tmp_path, monkeypatch):
    package = tmp_path / "fragments_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "small.py").write_text("model = dict(iterations=2)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = load_config(write(tmp_path, "on_cpu = 'fragments_of_a_test.small'\n"))
    apply_device_fragment(config)
    assert config.model.iterations == 2 and config.model.cost.radius == 3
    validate_config(config)
    missing = load_config(write(tmp_path, "on_cpu = 'fragments_of_a_test.smal'\n"))
    with pytest.raises(ConfigError, match="on_cpu: config fragment"):
        apply_device_fragment(missing)


def test_build_model_from_a_dict_leaves_it_as_it_was():
    config = {"type": "ffplug.AllPairsCorrelation", "levels": 2}
    ffplug.build_model({"model": config})
    assert config == {"type": "ffplug.AllPairsCorrelation", "levels": 2}


def test_testing_takes_the_validation_set():
    from ffplug.engine.run import keep_test_only

    config = load_config("raft_large_chairs")
    keep_test_only(config)
    assert (
        config.test_dataloader.dataset.split == "val"
        and config.test_dataloader.dataset.data_root == "data/FlyingChairs_release"
    )
    assert config.test_cfg == {} and config.test_evaluator.type == "ffplug.FlowMetric"
    assert config.val_dataloader is None and config.train_dataloader is None
