"""``ffplug face-swap``: one face's identity with another's expression, in new views and lights."""

from __future__ import annotations

import click


@click.command("face-swap")
@click.argument("face", type=click.Path(dir_okay=False))
@click.argument("expression", type=click.Path(dir_okay=False))
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="Picture to write.")
@click.option("--steps", default=5, show_default=True, help="Pictures from FACE's own expression to the other's.")
@click.option("--yaw", default=30.0, show_default=True, help="Largest turn of the second row, degrees.")
@click.option("--scale", default=3, show_default=True, help="Pixels of the picture for one of the network's.")
@click.option("--model", help="A model's name, a config file, or a work folder.  [latentface]")
@click.option("--checkpoint", help="Weights of both stages.")
@click.option("--detector", type=click.Path(dir_okay=False), help="YuNet's model file (.onnx): finds the largest face.")
@click.option("--random-weights", is_flag=True, help="Run without weights; the result means nothing.")
def command(
    face: str,
    expression: str,
    out: str,
    steps: int,
    yaw: float,
    scale: int,
    model: str | None,
    checkpoint: str | None,
    detector: str | None,
    random_weights: bool,
) -> None:
    """Give the FACE of one photo the EXPRESSION of another.

    The picture has three rows: from the face's own expression to the other's; the result from left to right; the
    result in light from left to right.
    """
    import cv2

    from ffplug.datasets.formats import write_image
    from ffplug.errors import ConfigError
    from ffplug_latentface.editing import swap_expression
    from ffplug_latentface.photos import load_model, read_photo

    if steps < 2 or not 1 <= scale <= 16 or not 0 <= yaw <= 60:
        raise ConfigError(f"--steps {steps}, --scale {scale}, --yaw {yaw:g}: expected 2 or more, 1..16 and 0..60")
    network = load_model(model, checkpoint, random_weights)
    find = None
    if detector:
        from ffplug_face.crops import YuNet

        find = YuNet(detector)
    first, second = (read_photo(path, network.autoencoder.image_size, find)[None] for path in (face, expression))
    sheet = swap_expression(network, first, second, steps, yaw).permute(1, 2, 0).numpy()
    sheet = cv2.resize(sheet, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    write_image(out, sheet)
    click.echo(f"{out}: {sheet.shape[1]}×{sheet.shape[0]} pixels")
