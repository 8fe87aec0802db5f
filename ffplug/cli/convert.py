"""``ffplug convert``: published checkpoints to FFPlug's."""

from __future__ import annotations

import click


@click.command("convert")
@click.argument("checkpoint", type=click.Path(dir_okay=False))
@click.argument("out", type=click.Path(dir_okay=False))
@click.option("--from", "source", required=True, help="Which implementation wrote it: raft_large, torchvision, gma ...")
def command(checkpoint: str, out: str, source: str) -> None:
    """Convert CHECKPOINT of a public implementation to OUT (.safetensors).

    The keys are renamed and checked strictly: a file of another model is refused with what is missing or unexpected.
    """
    from ffplug.apis.checkpoints import save_weights
    from ffplug.apis.converters import Converter, find_converter, read_public

    converter = find_converter(source)
    public = read_public(checkpoint, source)
    state = converter(public)
    if isinstance(converter, Converter) and (unread := converter.unread(public)):
        click.echo(f"left out {len(unread)} tensors that the network never reads: {', '.join(unread)}")
    path = save_weights(out, state, {"source": source})
    click.echo(f"{path}: {len(state)} tensors, {sum(value.numel() for value in state.values()):,} numbers")
