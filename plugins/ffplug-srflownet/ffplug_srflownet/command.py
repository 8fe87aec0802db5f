"""``ffplug srflow``: look into files of Gaussians, and render avatars into SRFlow's layout."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("srflow")
def command() -> None:
    """Look into files of Gaussians, and render avatars with exact flow."""


@command.command()
@click.argument("splats", type=click.Path(dir_okay=False))
def inspect(splats: str) -> None:
    """Tell what a .ply of 3D Gaussians holds."""
    from ffplug_srflownet.ply import read_splats

    cloud = read_splats(splats)
    degree = int(cloud.sh.shape[1] ** 0.5) - 1
    click.echo(f"{splats}: {len(cloud)} Gaussians, colours of degree {degree}")
    if not len(cloud):
        return
    if cloud.binding is None:
        click.echo("in the world, not bound to a mesh")
    else:
        click.echo(f"bound to {len(cloud.binding.unique())} triangles, {cloud.binding.min()} to {cloud.binding.max()}")
    unit = "triangle sizes" if cloud.binding is not None else "units of the file"
    for name, values in zip("xyz", cloud.means.unbind(1), strict=True):
        click.echo(f"{name}: {values.min():.4g} to {values.max():.4g} {unit}")
    longest, least = cloud.scales.amax(1), cloud.scales.amin(1)
    click.echo(f"longest deviation: median {longest.median():.4g} {unit}")
    click.echo(f"least deviation to longest: median {(least / longest).median():.2g}")
    opaque = cloud.opacities
    click.echo(f"opacity: median {opaque.median():.2g}, below 0.05 in {(opaque < 0.05).float().mean():.0%}")


def _size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    height, _, width = value.partition("x")
    if not (height.isdigit() and width.isdigit() and min(int(height), int(width)) >= 16):
        raise click.BadParameter(f"{value!r}: expected HEIGHTxWIDTH, both at least 16, such as 802x550")
    return int(height), int(width)


@command.command()
@click.argument("splats", type=click.Path(dir_okay=False))
@click.argument("motion", type=click.Path())
@click.option("--root", required=True, type=click.Path(file_okay=False), help="Folder of the data set.")
@click.option("--subject", required=True, help="Name of the person, as 018.")
@click.option("--split", type=click.Choice(["train", "test"]), default="train", show_default=True)
@click.option("--flame", type=click.Path(dir_okay=False), help="FLAME's model file, where MOTION holds its parameters.")
@click.option("--cameras", type=click.Path(dir_okay=False), help="transforms_*.json; else one camera from the front.")
@click.option("--view", "views", type=int, multiple=True, help="Number of a camera, several times for several; all.")
@click.option("--size", default="802x550", show_default=True, callback=_size, metavar="HEIGHTxWIDTH")
@click.option("--definition", type=click.Choice(["ray", "center", "affine2d"]), default="ray", show_default=True)
@click.option("--stride", "strides", type=click.IntRange(1), multiple=True, default=(1, 2), show_default=True)
@click.option("--sh-frame", type=click.Choice(["world", "local"]), default="world", show_default=True)
@click.option("--sh-degree", type=click.IntRange(0, 3), help="Leave out spherical harmonics above this degree.")
def render(
    splats: str,
    motion: str,
    root: str,
    subject: str,
    split: str,
    flame: str | None,
    cameras: str | None,
    views: tuple[int, ...],
    size: tuple[int, int],
    definition: str,
    strides: tuple[int, ...],
    sh_frame: str,
    sh_degree: int | None,
) -> None:
    """Render the avatar of SPLATS in MOTION as one subject of a set in SRFlow's layout, a clip for each camera.

    A subject that is complete is left as it is, so that the same command goes on with a set that was interrupted.
    """
    from ffplug.errors import ConfigError, DataError
    from ffplug_srflownet.avatars import Avatar
    from ffplug_srflownet.datasets.layout import check_info, write_info, write_subject

    if not subject or subject.startswith(".") or Path(subject).name != subject:
        raise ConfigError(f"--subject {subject!r}: expected the name of a folder, such as 018")
    folder = Path(root)
    if (folder / split / "camera" / subject / "spirals.json").exists():
        click.echo(f"{folder}: {split}/{subject} is complete already")
        return
    if (folder / "PROCEDURAL.json").exists():
        raise DataError(f"{root} is a procedural set: name another folder for avatars")
    check_info(folder, definition, strides)
    avatar = Avatar(splats, motion, flame, cameras, sh_frame=sh_frame, sh_degree=sh_degree)
    clips = [avatar.scene(size, view) for view in views or avatar.views]
    write_info(folder, definition, strides)
    count = write_subject(folder / split, subject, clips, definition, strides)
    click.echo(f"{folder}: {split}/{subject}: {count} frames in {len(clips)} clips, flow by {definition}")
