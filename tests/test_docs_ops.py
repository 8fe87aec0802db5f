"""The op of docs/ops.md works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs" / "ops.md"


def test_the_example_passes_its_conformance_test(tmp_path):
    text = DOCS.read_text()
    op, conformance = re.findall(r"```python\n(.*?)```", text, re.S)
    kernel = re.search(r"```cpp\n(.*?)```", text, re.S).group(1)
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "scale.cpp").write_text(kernel)
    (tmp_path / "scale_op.py").write_text(op)
    (tmp_path / "test_scale.py").write_text(f"from scale_op import Scale\n{conformance}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "test_scale.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    assert re.search(r"\d{2} passed", done.stdout), done.stdout[-500:]
