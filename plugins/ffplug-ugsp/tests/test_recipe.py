"""The small recipe and the way from the first phase to the second, through the real command line."""

import re

from ffplug.cli import cli, run


def command(*arguments):
    assert run(cli, [str(argument) for argument in arguments], "ffplug") == 0


def test_train_label_and_train_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = "data/vimeo_triplet"
    narrow = ("model.network.widths=[4,4,4,4]", "model.network.depths=[1,1,1,1]")
    loaders = ("train_dataloader.batch_size=2", "train_dataloader.num_workers=0", "val_dataloader.num_workers=0",
               "train_dataloader.persistent_workers=False", "val_dataloader.persistent_workers=False",
               "train_dataloader.pin_memory=False", "train_dataloader.dataset.pipeline.1.crop=64")  # fmt: skip
    steps = ("train_cfg.max_iters=2", "train_cfg.val_interval=2", "default_hooks.checkpoint.interval=2",
             "default_hooks.logger.interval=1")  # fmt: skip
    options = ("--cfg-options", *narrow, *loaders, *steps)
    size = ("prepare_data.scenes=8", "prepare_data.size=[64,64]")
    command("train", "ugsp_procedural", *options, *size)
    work_dir = tmp_path / "work_dirs" / "ugsp_procedural"
    log = next(work_dir.glob("*/*.log")).read_text()
    assert re.search(r"loss_sparsity: \d.*activity: 0\.\d.*loss_label: \d", log)
    assert re.search(r"PSNR: \d", log) and "procedural" in log
    (tmp_path / "data" / "vimeo_triplet-small").rename(tmp_path / data)
    splits = ("train_dataloader.dataset.split=all", "val_dataloader.dataset.split=test")
    command("train", "ugsp_uncertainty_vimeo", *options, *splits)
    weights = tmp_path / "work_dirs" / "ugsp_uncertainty_vimeo" / "weights.safetensors"
    (tmp_path / "phase1.py").write_text(
        "from mmengine.config import read_base\n\nwith read_base():\n"
        "    from ffplug_ugsp.configs.ugsp_uncertainty_vimeo import *\n\n"
        'model["network"].update(widths=[4, 4, 4, 4], depths=[1, 1, 1, 1])\n'
    )
    command("uncertainty-labels", "phase1.py", weights, "--root", data)
    command("train", "ugsp_vimeo", *options, *splits)
    log = next((tmp_path / "work_dirs" / "ugsp_vimeo").glob("*/*.log")).read_text()
    assert re.search(r"loss_label: 0\.0000", log)  # labels count from the first epoch's end on
