"""``ffplug test``: test a model."""

from __future__ import annotations

import os

import click


@click.command("test")
@click.argument("config")
@click.argument("checkpoint")
@click.option("--work-dir", help="Folder for logs, pictures and the report; work_dirs/<config> by default.")
@click.option("--out", help="File for the metrics as JSON; metrics.json in the work folder by default.")
@click.option("--cfg-options", multiple=True, metavar="KEY=VALUE", help="Replace a value; may be given several times.")
@click.option(
    "--launcher",
    type=click.Choice(["none", "pytorch", "slurm", "mpi"]),
    help="What started the processes; torchrun is noticed by itself.",
)
@click.option("--trust-checkpoint", is_flag=True, help="Load a checkpoint that holds code. It will be run.")
def command(
    config: str,
    checkpoint: str,
    work_dir: str | None,
    out: str | None,
    cfg_options: tuple[str, ...],
    launcher: str | None,
    trust_checkpoint: bool,
) -> None:
    """Test CHECKPOINT (a training checkpoint, .safetensors, published weights or their name) by CONFIG."""
    import json
    from pathlib import Path

    from mmengine.dist import is_main_process

    from ffplug.apis.models import load_weights
    from ffplug.apis.weights import find_file
    from ffplug.compat import TRUST_VARIABLE
    from ffplug.engine.checkpoint_hook import bare
    from ffplug.engine.run import keep_test_only, load_run_config, open_runner
    from ffplug.errors import CheckpointError
    from ffplug.evaluation.flow_metrics import JSON_FORMAT, read_metrics
    from ffplug.files import atomic_path
    from ffplug.version import __version__

    if trust_checkpoint:
        os.environ[TRUST_VARIABLE] = "1"
    if not find_file(checkpoint)[0].is_file():
        raise CheckpointError(f"checkpoint {checkpoint} does not exist")
    loaded = load_run_config(config, cfg_options, work_dir, None, launcher)
    keep_test_only(loaded)
    with open_runner(loaded) as runner:
        load_weights(bare(runner.model), checkpoint)
        metrics = {name: float(value) for name, value in runner.test().items() if isinstance(value, (int, float))}
        first = is_main_process()
    if first:
        target = Path(out) if out else Path(loaded.work_dir) / "metrics.json"
        record = {"config": config, "checkpoint": checkpoint, "ffplug_version": __version__, "metrics": metrics}
        record |= {"format": JSON_FORMAT, "evaluations": read_metrics(Path(loaded.work_dir) / "metrics.json")}
        with atomic_path(target) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n")
        click.echo(f"metrics are in {target}")
