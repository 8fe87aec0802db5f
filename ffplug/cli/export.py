"""``ffplug export``: models as ONNX files."""

from __future__ import annotations

import click


@click.command("export")
@click.argument("model")
@click.argument("out", type=click.Path(dir_okay=False))
@click.option("--checkpoint", help="Weights: a file, or a name of released ones; without, they are random.")
@click.option("--size", default="272x480", show_default=True, metavar="HxW", help="Of the inputs, in pixels.")
@click.option("--any-size", is_flag=True, help="Let the file take other sizes, too, where the model can.")
@click.option("--dtype", default="float32", show_default=True, help="float32 or float16.")
def command(model: str, out: str, checkpoint: str | None, size: str, any_size: bool, dtype: str) -> None:
    """Write MODEL (a name or a config file) as ONNX to OUT (.onnx).

    Beside it comes a JSON that names every channel, range and convention. Where ONNX Runtime is installed, its result
    is compared with PyTorch's first.
    """
    import ffplug
    from ffplug.apis.export import export_onnx
    from ffplug.cli.benchmark import parse_size

    height, width = parse_size(size)
    built = ffplug.build_model(model, checkpoint)
    done = export_onnx(
        built, out, height, width, dtype=dtype, any_size=any_size, name=model, weights=str(checkpoint or "")
    )
    if done.difference is None:
        checked = "not compared with PyTorch: ONNX Runtime is not installed (pip install onnxruntime)"
    else:
        checked = f"ONNX Runtime differs from PyTorch by at most {done.difference:.1e}"
    click.echo(f"{done.model}: {done.model.stat().st_size:,} bytes; {checked}")
    click.echo(f"{done.sidecar}: channels, ranges and conventions")
