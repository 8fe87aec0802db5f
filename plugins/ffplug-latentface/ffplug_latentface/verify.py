"""``ffplug face-verify``: the protocol of LFW."""

from __future__ import annotations

import click


@click.command("face-verify")
@click.argument("root", type=click.Path(file_okay=False))
@click.option("--pairs", type=click.Path(dir_okay=False), help="List of pairs, LFW's or SLLFW's.  [ROOT/pairs.txt]")
@click.option("--folds", default=10, show_default=True, help="Parts of the list, as long each and in its order.")
@click.option(
    "--embedding",
    type=click.Choice(["identity", "expression", "codes"]),
    default="identity",
    show_default=True,
    help="What is compared, of the picture and of its mirrored twin.",
)
@click.option("--roc", type=click.Path(dir_okay=False), help="The ROC curve: a table (.csv) or a picture (.png, .pdf).")
@click.option("--model", help="A model's name, a config file, or a work folder.  [latentface]")
@click.option("--checkpoint", help="Weights of both stages.")
@click.option("--random-weights", is_flag=True, help="Run without weights; the result means nothing.")
def command(
    root: str,
    pairs: str | None,
    folds: int,
    embedding: str,
    roc: str | None,
    model: str | None,
    checkpoint: str | None,
    random_weights: bool,
) -> None:
    """Verify the pairs of faces below ROOT (lfw_crop/PERSON/PERSON_0001.jpg, pairs.txt).

    Two faces are as alike as the cosine of their embeddings; for each fold the threshold is that which is best on the
    others. Printed are accuracy with its deviation over the folds, area under the ROC curve, and equal error rate.
    """
    import os

    import torch

    from ffplug.errors import ConfigError, DataError
    from ffplug_latentface.datasets.lfw import LFWDataset, read_pairs
    from ffplug_latentface.evaluation.verification import (
        area_under_curve,
        equal_error_rate,
        roc_curve,
        verification_accuracy,
    )
    from ffplug_latentface.photos import load_model
    from ffplug_latentface.verification import pair_similarities, write_roc

    if roc and os.path.splitext(roc)[1].lower() not in (".csv", ".png", ".pdf"):
        raise ConfigError(f"--roc {roc}: expected a name that ends in .csv, .png or .pdf")
    listed = read_pairs(pairs or os.path.join(root, "pairs.txt"))
    if folds < 2 or len(listed) % folds:
        raise DataError(f"{len(listed)} pairs in {folds} folds: expected as many in each; set --folds")
    network = load_model(model, checkpoint, random_weights)
    load = dict(type="ffplug_latentface.LoadFace", size=network.autoencoder.image_size)
    similarity = pair_similarities(network, LFWDataset(root, pipeline=[load]), listed, embedding)
    same = torch.tensor([same for *_, same in listed])
    accuracy, deviation = verification_accuracy(similarity, same, folds)
    click.echo(f"{len(listed)} pairs in {folds} folds, {embedding}: accuracy {accuracy:.4f} ± {deviation:.4f}")
    area, rate = area_under_curve(similarity, same), equal_error_rate(similarity, same)
    click.echo(f"area under the ROC curve {area:.4f}, equal error rate {rate:.4f}")
    if roc:
        write_roc(roc, *roc_curve(similarity, same), f"{embedding}: area {area:.3f}")
        click.echo(roc)
