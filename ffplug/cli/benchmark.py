"""``ffplug benchmark``: time and memory."""

from __future__ import annotations

import click


@click.command("benchmark")
@click.argument("model")
@click.option("--size", default="436x1024", show_default=True, metavar="HxW", help="Of the frames.")
@click.option("--iterations", type=int, help="Of a recurrent model; its own number if not given.")
@click.option("--repeat", type=int, default=5, show_default=True, help="Timed runs, after one to warm up.")
@click.option("--batch-size", type=int, default=1, show_default=True)
@click.option("--threads", type=int, help="Threads on the CPU.")
@click.option("--device", help="cpu, cuda ...; the GPU if there is one.")
@click.option("--dtype", default="float32", show_default=True, help="float32, float16 or bfloat16.")
@click.option("--compile", "compile_model", is_flag=True, help="Run through torch.compile.")
def command(
    model: str,
    size: str,
    iterations: int | None,
    repeat: int,
    batch_size: int,
    threads: int | None,
    device: str | None,
    dtype: str,
    compile_model: bool,
) -> None:
    """Time MODEL (a name or a config file) with random weights, and tell its peak of memory."""
    import torch

    import ffplug
    from ffplug.apis.complexity import measure
    from ffplug.apis.inferencer import parse_device, parse_dtype

    if threads:
        torch.set_num_threads(threads)
    place = parse_device(device)
    built = ffplug.build_model(model).to(place)
    timing = measure(built, *parse_size(size), iterations, repeat, batch_size, parse_dtype(dtype), compile_model)
    low, high = timing.quartiles
    click.echo(f"{model}, {size}, batch {batch_size}, {dtype}, {timing.device}, {torch.get_num_threads()} thread(s)")
    click.echo(f"median {timing.median * 1e3:.1f} ms, quartiles {low * 1e3:.1f} to {high * 1e3:.1f} ms, {repeat} runs")
    click.echo(f"peak memory {timing.peak_memory / 2**20:.0f} MiB")


def parse_size(text: str) -> tuple[int, int]:
    """``436x1024`` to (436, 1024).

    Raises:
        ConfigError: anything else.
    """
    from ffplug.errors import ConfigError

    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise ConfigError(f"--size {text}: expected HEIGHTxWIDTH such as 436x1024")
    return int(sides[0]), int(sides[1])
