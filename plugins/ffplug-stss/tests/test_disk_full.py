"""Commands on a disk that runs full, a real one of a few megabytes: what they say, and what they leave."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from ffplug_stss.capture import BUFFERS, COLOUR, write_exr

pytest.importorskip("OpenEXR")

RUN = """
import contextlib, io, json, os, sys
from pathlib import Path
from ffplug.cli import cli, run

disk, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
for kilobytes, arguments in cases:
    status = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(status.f_bavail * status.f_frsize - 1024 * kilobytes))
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = run(cli, arguments, "ffplug")
    (disk / "filler").unlink()
    # What a later run goes on with has a name of its own.
    left = [str(path) for path in disk.rglob("*") if path.is_file() and ".partial" not in str(path)]
    print(json.dumps([code, said.getvalue(), left]))
"""


@pytest.fixture
def capture(tmp_path):
    """Eight grey frames."""
    for number in range(1, 8):
        for name, channels in BUFFERS.items():
            path = tmp_path / "low" / f"Room{name}.{number:04d}.exr"
            write_exr(path, {channel: np.full((16, 16), 0.5, np.float32) for channel in channels})
        path = tmp_path / "high" / f"Room{COLOUR}.{number:04d}.exr"
        write_exr(path, {channel: np.full((32, 32), 0.5, np.float32) for channel in "RGB"})
    return tmp_path


def test_nothing_half_written_stays_and_the_reason_is_told(capture, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    drawn = ["--scenes", "1", "--frames", "2", "--set", "samples=1"]
    cases = [
        (60, ["synth", "stss", "--root", f"{disk}/stss", "--size", "24x40", *drawn]),
        (8, ["synth", "nss", "--root", f"{disk}/nss", "--size", "16x24", *drawn]),
        (30, ["stss", "import", f"{capture}/low", f"{capture}/high", f"{disk}/made", "--far", "100"]),
        (2, ["stss", "view", f"{disk}/clip.mp4", "--size", "16x24", "--frames", "2"]),
    ]
    if shutil.which("unshare") is None:
        pytest.skip("a small disk needs the command unshare")
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    small = [*mount, 'mount -t tmpfs -o size=3m none "$0" && exec "$@"', str(disk)]
    if subprocess.run([*small, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets no user mount a small disk")
    done = subprocess.run(
        [*small, sys.executable, "-c", RUN, str(disk), json.dumps(cases)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(cases)
    for (_, arguments), (code, said, left) in zip(cases, results, strict=True):
        assert code != 0 and "Error" not in said, arguments
        assert "the disk is full" in said and "make room and give the same command again" in said, said
        assert left == []
