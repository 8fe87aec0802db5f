"""``ffplug pack-triplets``: Vimeo90K's pictures as arrays, for machines whose GPUs wait for PNG."""

from __future__ import annotations

import click


@click.command("pack-triplets")
@click.argument("root", type=click.Path(file_okay=False))
@click.option("--out", help="Folder for the arrays, in the frames' tree.  [ROOT/packed]")
@click.option("--split", default="all", show_default=True, help="all (that train), train, validation or test.")
@click.option("--threads", default=4, show_default=True, help="That decode at once.")
def command(root: str, out: str | None, split: str, threads: int) -> None:
    """Pack the triplets of Vimeo90K in ROOT, 1 MiB each: some 52 GB for the whole training list.

    Training reads them where its data set has packed="packed". Those that are there are left as they are.
    """
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from rich.progress import track

    from ffplug.datasets.formats import read_image
    from ffplug.errors import ConfigError
    from ffplug_ugsp.datasets import VimeoTripletDataset
    from ffplug_ugsp.datasets.packing import SUFFIX, write_packed
    from ffplug_ugsp.datasets.triplets import FRAMES

    if threads < 1:
        raise ConfigError(f"--threads {threads}: expected at least 1")
    triplets = VimeoTripletDataset(root, split=split)
    folder = Path(out or Path(root) / "packed")

    def pack(index: int) -> None:
        info = triplets.get_data_info(index)
        target = folder / f"{info['sequence']}{SUFFIX}"
        if not target.exists():
            write_packed(target, [read_image(info[f"{name}_path"]) for name in FRAMES])

    with ThreadPoolExecutor(threads) as pool:
        for _ in track(pool.map(pack, range(len(triplets))), "packing", len(triplets), transient=True):
            pass
    click.echo(f"{folder}: {len(triplets)} triplets")
