"""Run the blocks of one page of the documentation, read as JSON from standard input, in the folder it is started in."""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from pathlib import Path


def run(blocks: list[dict], given: dict) -> None:
    """Run blocks in order: Python in one namespace, Bash by ``bash -eu``, and one with a title as a file of that name.

    Args:
        blocks: dicts of ``page``, ``line``, ``language``, ``title`` (or None) and ``text``.
        given: first content of Python's namespace.

    Raises:
        SystemExit: a block fails; names its page and line.
    """
    namespace = {"__name__": "docs", **given}
    for block in blocks:
        where = f"{block['page']}, line {block['line']}"
        sys.stdout.write(f"--- {where}\n")
        sys.stdout.flush()
        if block["title"]:
            path = Path(block["title"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block["text"])
        elif block["language"] == "python":
            try:
                exec(compile(block["text"], where, "exec"), namespace)
            except BaseException:
                traceback.print_exc()
                sys.exit(f"{where}: this block fails")
        elif block["language"] == "bash":
            status = subprocess.run(["bash", "-euo", "pipefail", "-c", block["text"]], check=False).returncode
            if status != 0:
                sys.exit(f"{where}: this block ends with status {status}")


def frames() -> dict:
    """Two successive frames and a third, N×3×H×W, RGB in 0..255, where a page shows neither reading nor size."""
    import torch

    from ffplug.datasets import read_image

    pictures = (torch.from_numpy(read_image(path)).permute(2, 0, 1)[None].float() for path in ("a.png", "b.png"))
    first, second = pictures
    return {"image1": first, "image2": second, "image3": first}


if __name__ == "__main__":
    sys.path.insert(0, "")
    page = json.load(sys.stdin)
    python = any(block["language"] == "python" and not block["title"] for block in page)
    run(page, frames() if python else {})
