"""``ffplug embed``: identity and expression of photographs."""

from __future__ import annotations

import click


@click.command("embed")
@click.argument("photos", nargs=-1, required=True, type=click.Path(dir_okay=False))
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="Arrays to write (.npz).")
@click.option("--model", help="A model's name, a config file, or a work folder.  [latentface]")
@click.option("--checkpoint", help="Weights of both stages.")
@click.option("--detector", type=click.Path(dir_okay=False), help="YuNet's model file (.onnx): finds the largest face.")
@click.option("--random-weights", is_flag=True, help="Run without weights; the result means nothing.")
def command(
    photos: tuple[str, ...],
    out: str,
    model: str | None,
    checkpoint: str | None,
    detector: str | None,
    random_weights: bool,
) -> None:
    """Write the identity and the expression of the faces in PHOTOS.

    The file holds ``files``, and ``identity`` and ``expression``, each with a row for every photo; both add up to the
    code. Without --detector each photo's middle square is taken as a crop of a face. Photos without a face, and files
    that are no pictures, are left out and listed.
    """
    import numpy as np
    import torch

    from ffplug.compat import atomic_path
    from ffplug.errors import ConfigError, DataError
    from ffplug_latentface.photos import load_model, read_photo

    if not out.endswith(".npz"):
        raise ConfigError(f"--out {out}: expected a name that ends in .npz")
    network = load_model(model, checkpoint, random_weights)
    find = None
    if detector:
        from ffplug_face.crops import YuNet

        find = YuNet(detector)
    images, files = [], []
    for photo in photos:
        try:
            images.append(read_photo(photo, network.autoencoder.image_size, find))
            files.append(photo)
        except DataError as error:
            click.echo(f"left out: {error}", err=True)
    if not files:
        raise DataError(f"none of {len(photos)} photos can be used")
    with torch.no_grad():
        both = torch.cat([network.embed(torch.stack(images[k : k + 32]), "both") for k in range(0, len(images), 32)])
    identity, expression = both.numpy().astype(np.float32).T.reshape(2, -1, len(files)).transpose(0, 2, 1)
    with atomic_path(out) as path, open(path, "wb") as file:
        np.savez(file, files=np.array(files), identity=identity, expression=expression)
    left = f", {len(photos) - len(files)} left out" if len(files) < len(photos) else ""
    click.echo(f"{out}: {len(files)} faces{left}; identity and expression of {identity.shape[1]} numbers each")
