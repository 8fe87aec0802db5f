"""``ffplug affect``: what the face in a video shows."""

from __future__ import annotations

import click


@click.command("affect")
@click.argument("video", type=click.Path(dir_okay=False))
@click.option("--out", type=click.Path(dir_okay=False), help="Table to write (CSV).")
@click.option("--plot", type=click.Path(dir_okay=False), help="Curves to draw (.png, .pdf, .svg).")
@click.option("--video", "annotated", type=click.Path(dir_okay=False), help="Video to write, with boxes and labels.")
@click.option("--model", help="A model's or recipe's name, a config file, or a work folder.  [fpn_maa]")
@click.option("--checkpoint", help="Weights: of a training, or the public ones.")
@click.option("--detector", type=click.Path(dir_okay=False), help="YuNet's model file (.onnx): finds the faces.")
@click.option("--faces", default=1, show_default=True, help="How many faces of a frame, the largest first; 0: all.")
@click.option(
    "--boxes", type=click.Path(dir_okay=False), help="CSV of faces: frame (from 0), left, top, width, height."
)
@click.option("--margin", default=0.0, show_default=True, help="Share of a box's sides that is added all round.")
@click.option("--smooth", default=0.0, show_default=True, help="Deviation in seconds of a Gaussian over time.")
@click.option("--flip", is_flag=True, help="Look at the mirrored face as well, and take the mean.")
@click.option("--columns", type=click.Choice(["py-feat", "openface"]), default="py-feat", show_default=True)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Probability above which an action unit is there.  [the model's own]",
)
@click.option("--size", type=int, help="Side of the pictures that the network sees.  [its own]")
@click.option("--batch-size", default=32, show_default=True)
@click.option("--device", help="cpu, cuda, cuda:1 ...; the GPU if there is one.")
@click.option("--random-weights", is_flag=True, help="Run without weights; the result means nothing.")
def command(
    video: str,
    out: str | None,
    plot: str | None,
    annotated: str | None,
    model: str | None,
    checkpoint: str | None,
    detector: str | None,
    faces: int,
    boxes: str | None,
    margin: float,
    smooth: float,
    flip: bool,
    columns: str,
    threshold: float | None,
    size: int | None,
    batch_size: int,
    device: str | None,
    random_weights: bool,
) -> None:
    """Tell valence, arousal, expression and action units of the face in VIDEO, frame by frame.

    Faces come from --detector or --boxes; without either, each whole frame is taken as one face.
    """
    import torch

    from ffplug.apis.models import build_model
    from ffplug.apis.run_folder import resolve_run
    from ffplug.apis.video import VideoFrames, VideoWriter
    from ffplug.errors import CheckpointError, ConfigError
    from ffplug_fpnmaa.tracking import DetectedFaces, ListedFaces, describe, whole_frame
    from ffplug_fpnmaa.video import analyse_video, annotate, plot_table

    if not (out or plot or annotated):
        raise ConfigError("nothing to write: give --out affect.csv, --plot affect.png, or --video annotated.mp4")
    if detector and boxes:
        raise ConfigError("--detector and --boxes both say where the faces are: give one of them")
    reader = VideoFrames(video)
    config, path = resolve_run(model, checkpoint)
    if path is None and not random_weights:
        raise CheckpointError(
            "no weights: give --checkpoint with the authors' file (from github.com/ryanhe312/ABAW2-FPNMAA), or "
            "--model work_dirs/fpn_maa_procedural after `ffplug train fpn_maa_procedural`; --random-weights tries the "
            "command out"
        )
    network = build_model(config or "fpn_maa", checkpoint=path)
    if not hasattr(network, "analyse"):
        raise ConfigError(f"{model or checkpoint}: not a model of ffplug-fpnmaa")
    network.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    finder = whole_frame
    if boxes:
        finder = ListedFaces(boxes)
    elif detector:
        from ffplug_face.crops import YuNet

        finder = DetectedFaces(YuNet(detector), faces)
    else:
        click.echo("no --detector and no --boxes: each whole frame is taken as one face", err=True)
    limits = None if threshold is None else (threshold,) * len(network.head.units)
    size = size or network.image_size
    table = analyse_video(network, reader, finder, size, batch_size, flip, margin, limits).smoothed(smooth)
    shown = len({int(frame) for frame in table.frame})
    click.echo(f"{video}: {table.frames} frames, {shown} with a face ({describe(finder)})")
    if random_weights and path is None:
        click.echo("random weights: the result means nothing", err=True)
    if out:
        table.write_csv(out, columns)
        click.echo(f"table: {out}")
    if plot:
        title = "random weights: means nothing" if path is None else ""
        plot_table(table, plot, title)
        click.echo(f"curves: {plot}")
    if annotated:
        rows: dict[int, list[int]] = {}
        for row, frame in enumerate(table.frame):
            rows.setdefault(int(frame), []).append(row)
        with VideoWriter(annotated, reader.rate) as writer:
            for index, image in enumerate(reader):
                writer.write(annotate(image, table, rows.get(index, [])))
        click.echo(f"video: {annotated}")
