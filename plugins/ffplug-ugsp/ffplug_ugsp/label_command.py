"""``ffplug uncertainty-labels``: from the first phase of UGSP to the second."""

from __future__ import annotations

import click


@click.command("uncertainty-labels")
@click.argument("model")
@click.argument("checkpoint")
@click.option("--root", required=True, help="The folder vimeo_triplet.")
@click.option("--out", help="Folder for the labels, in the frames' tree.  [ROOT/labels]")
@click.option("--rates", nargs=3, type=float, default=(0.70, 0.45, 0.245), show_default=True,
              help="Shares of pixels to keep at 1/8, 1/4 and 1/2 of the size.")  # fmt: skip
@click.option("--sample", default=2000, show_default=True, help="Triplets that the thresholds are taken from.")
@click.option("--device", help="cpu, cuda, cuda:1 ...; the GPU if there is one.")
def command(
    model: str,
    checkpoint: str,
    root: str,
    out: str | None,
    rates: tuple[float, float, float],
    sample: int,
    device: str | None,
) -> None:
    """Label the triplets of Vimeo90K's training list with CHECKPOINT of the uncertainty network MODEL.

    A pixel is labelled where the uncertainty is above a threshold of the whole set, such that the given shares are.
    Labels that are there are left as they are.
    """
    from pathlib import Path

    import torch
    from mmengine.logging import print_log

    from ffplug import build_model
    from ffplug.errors import ConfigError
    from ffplug_ugsp.datasets import VimeoTripletDataset
    from ffplug_ugsp.labels import FILES, label, thresholds, write_labels
    from ffplug_ugsp.models import UncertaintyNet

    network = getattr(build_model(model, checkpoint), "network", None)
    if not isinstance(network, UncertaintyNet):
        raise ConfigError(f"{model}: expected a recipe of the uncertainty network, such as ugsp_uncertainty_vimeo")
    network.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    place = next(network.parameters()).device
    triplets = VimeoTripletDataset(root, split="all")
    folder = Path(out or Path(root) / "labels")

    def uncertainty(index: int) -> torch.Tensor:
        frames = triplets[index]["inputs"].to(place)
        return network.uncertainty(frames[None, 0], frames[None, 1])

    step = max(1, len(triplets) // max(1, sample))
    above = thresholds((uncertainty(index) for index in range(0, len(triplets), step)), rates)
    print_log(f"thresholds of uncertainty: {', '.join(f'{value:.4f}' for value in above)}", "current")
    for index in range(len(triplets)):
        target = folder / triplets.get_data_info(index)["sequence"]
        if not all((target / name).exists() for name in FILES):
            write_labels(label(uncertainty(index), above)[0], target)
    print_log(f"{folder}: labels of {len(triplets)} triplets", "current")
