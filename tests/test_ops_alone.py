"""The ops and their benchmark need torch alone: a bare GPU machine can check and time them."""

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_benchmark_runs_without_mmengine_and_pytest(tmp_path):
    code = f"""
    import sys

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("mmengine", "pytest", "cv2", "click", "rich", "h5py"):
                raise ModuleNotFoundError(name)

    import importlib.util
    found = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name == "mmengine" else found(name, *rest)
    sys.meta_path.insert(0, Missing())
    sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "benchmarks")!r}]
    sys.argv = ["ops.py", "--only", "instance_norm", "--budget", "0", "--device", "cpu"]
    import runpy
    runpy.run_path({str(ROOT / "benchmarks" / "ops.py")!r}, run_name="__main__")
    assert "mmengine" not in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "| instance_norm | 64, 220x512 | cpp |" in done.stdout
