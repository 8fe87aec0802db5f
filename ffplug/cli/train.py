"""``ffplug train``: train a model."""

from __future__ import annotations

import os

import click


@click.command("train")
@click.argument("config")
@click.option("--work-dir", help="Folder for checkpoints, logs and the report; work_dirs/<config> by default.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="auto",
    metavar="[auto|PATH]",
    help="Go on from the newest whole checkpoint of the work folder, or from PATH.",
)
@click.option(
    "--amp",
    is_flag=False,
    flag_value="auto",
    type=click.Choice(["auto", "fp16", "bf16"]),
    help="Mixed precision; auto is fp16 on a GPU and bf16 on the CPU.",
)
@click.option("--seed", type=int, help="Seed of everything random.")
@click.option("--cfg-options", multiple=True, metavar="KEY=VALUE", help="Replace a value; may be given several times.")
@click.option(
    "--launcher",
    type=click.Choice(["none", "pytorch", "slurm", "mpi"]),
    help="What started the processes; torchrun is noticed by itself.",
)
@click.option("--trust-checkpoint", is_flag=True, help="Load checkpoints that hold code. It will be run.")
def command(
    config: str,
    work_dir: str | None,
    resume: str | None,
    amp: str | None,
    seed: int | None,
    cfg_options: tuple[str, ...],
    launcher: str | None,
    trust_checkpoint: bool,
) -> None:
    """Train by CONFIG (a file, or the name of a recipe), on the GPU if there is one.

    Interrupt it at any time and go on with --resume: the result is the same.
    """
    import torch
    from mmengine.dist import is_main_process

    from ffplug.compat import TRUST_VARIABLE
    from ffplug.engine.run import load_run_config, open_runner, set_resume
    from ffplug.errors import ConfigError

    if trust_checkpoint:
        os.environ[TRUST_VARIABLE] = "1"
    loaded = load_run_config(config, cfg_options, work_dir, seed, launcher)
    if loaded.get("train_dataloader") is None or loaded.get("optim_wrapper") is None:
        raise ConfigError(f"{config}: has no train_dataloader and optim_wrapper, so there is nothing to train")
    set_resume(loaded, resume)
    if amp is not None:
        dtype = amp if amp != "auto" else "fp16" if torch.cuda.is_available() else "bf16"
        loaded.optim_wrapper = {**loaded.optim_wrapper, "type": "ffplug.AmpOptimWrapper", "dtype": dtype}
    with open_runner(loaded) as runner:
        runner.train()
        first = is_main_process()
    if first:
        click.echo(f"results are in {loaded.work_dir}")
