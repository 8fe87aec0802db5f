"""``ffplug flops``: parameters and FLOPs."""

from __future__ import annotations

import click


@click.command("flops")
@click.argument("model")
@click.option("--size", default="436x1024", show_default=True, metavar="HxW", help="Of the frames.")
@click.option("--iterations", type=int, help="Of a recurrent model; its own number if not given.")
def command(model: str, size: str, iterations: int | None) -> None:
    """Count parameters and FLOPs of MODEL (a name or a config file) on one frame pair.

    FLOPs are those of the matrix products and convolutions that really run, 2 per multiply-accumulate.
    """
    import ffplug
    from ffplug.apis.complexity import complexity
    from ffplug.cli.benchmark import parse_size

    counted = complexity(ffplug.build_model(model), *parse_size(size), iterations)
    click.echo(f"{model}, {size}, {iterations or 'its own number of'} iterations")
    click.echo(f"parameters {counted.parameters:,} (trainable {counted.trainable:,})")
    for name, count in counted.parts.items():
        if count:
            click.echo(f"  {name}: {count:,}")
    click.echo(f"GFLOP {counted.flops / 1e9:.1f} (G multiply-accumulates {counted.flops / 2e9:.1f})")
    for name, count in counted.flops_by_part.items():
        if count:
            click.echo(f"  {name}: {count / 1e9:.1f}")
