"""The conformance kit is green on a sound plugin, and each check red, with advice, on one that is broken in its way."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import warm

from ffplug.plugin import discover, find
from ffplug.testing.checks import CHECKS
from ffplug.testing.subject import Finding, LeftOut, Subject

SOUND = "ffplug_sound"
_numbers = itertools.count()

INIT, MANIFEST, REGISTRY = f"{SOUND}/__init__.py", f"{SOUND}/ffplug.toml", f"{SOUND}/registry.py"
UPDATE, LOSS, OP = f"{SOUND}/models/gated_update.py", f"{SOUND}/losses.py", f"{SOUND}/ops/gate.py"
DATASET, CONFIG, RECIPE = f"{SOUND}/datasets/pairs.py", f"{SOUND}/configs/sound.py", f"{SOUND}/configs/sound_pairs.py"
KERNEL, CUDA, PROJECT = f"{SOUND}/ops/csrc/gate.cpp", f"{SOUND}/ops/csrc/gate.cu", "pyproject.toml"

GATE = "return hidden, confidence_gate(residual, self.gate_head(hidden))"
HEAD = "nn.init.constant_(self.gate_head[-1].bias, 4.0)"
GET_ITEM = "    def scan(self"
PADDED = '''

@MODELS.register_module()
class PaddedEstimator(RecurrentFlowEstimator):
    """Forgets to take the padding off."""

    def _predict(self, image1, image2, samples):
        result = self._result(self.run(image1, image2, self.test_iterations))
        for index, sample in enumerate(samples):
            sample.pred_flow = result["flow"][index]
        return samples
'''


def item(line: str) -> tuple[str, str, str]:
    """Put a line between reading a sample and giving it away."""
    body = (
        "def __getitem__(self, index):",
        "    item = super().__getitem__(index)",
        f"    {line}",
        "    return item",
        "",
    )
    return DATASET, GET_ITEM, "".join(f"    {text}\n" for text in body) + GET_ITEM


BROKEN = {
    "torch in the package": (
        "light_import",
        [(INIT, "", "import torch\n")],
        r"__init__\.py: importing the package imports torch.*import nothing heavy there",
    ),
    "a type that the manifest lacks": (
        "manifest",
        [(MANIFEST, '"GatedUpdate", ', "")],
        r"components\.models lacks GatedUpdate.*add what is registered",
    ),
    "a type that nothing registers": (
        "manifest",
        [(MANIFEST, '"GatedUpdate"', '"GatedUpdate", "Forgotten"')],
        r"lists Forgotten, which nothing registers.*strike it out",
    ),
    "a grandchild registry": (
        "manifest",
        [
            (
                REGISTRY,
                "from mmengine.registry import MODELS as _MODELS",
                "from ffplug.registry import MODELS as _MODELS",
            )
        ],
        r"registry\.py: MODELS has the scope.*direct child of MMEngine's root",
    ),
    "no minimal config": (
        "types",
        [(UPDATE, "gate_width: int = 32", "gate_width: int"), (UPDATE, "    Example:\n", "    See:\n")],
        r"GatedUpdate: does not build from its name alone.*'gate_width'.*Example:",
    ),
    "a wrong minimal config": (
        "types",
        [(UPDATE, 'GatedUpdate", gate_width=16', 'GatedUpdate", gate_widht=16')],
        r"GatedUpdate: does not build from its Example.*gate_widht",
    ),
    "no docstring": (
        "types",
        [(LOSS, '"""', "'''"), (LOSS, "    '''", "    _ = '''")],
        r"SmoothnessLoss: has no docstring.*say what it is",
    ),
    "a misspelt key": (
        "configs",
        [(RECIPE, "", "trian_cfg = dict(max_iters=3)\n")],
        r"unknown key 'trian_cfg'.*did you mean",
    ),
    "values that are not plain": (
        "configs",
        [(RECIPE, "", "from pathlib import PurePosixPath\nwork_dir = PurePosixPath('x')\n")],
        r"sound_pairs: can't be dumped and loaded again.*plain values",
    ),
    "an unused parameter": (
        "gradients",
        [(UPDATE, HEAD, f"{HEAD}\n        self.unused = nn.Linear(2, 2)")],
        r"2 of \d+ trainable parameters get no gradient: decoder\.update\.unused\.weight.*requires_grad=False",
    ),
    "a loss of NaN": (
        "gradients",
        [
            (LOSS, "return {", "return {'loss_log': (outputs['flows'][-1] * 0).mean().log() * 0, **{"),
            (LOSS, "}\n", "}}\n"),
        ],
        r"loss_log is .*nan.*logarithm",
    ),
    "predictions with padding": (
        "predictions",
        [
            (
                UPDATE,
                "from ffplug.models import RAFTUpdate",
                "from ffplug.models import RAFTUpdate, RecurrentFlowEstimator",
            ),
            (UPDATE, None, PADDED),
            (MANIFEST, '"GatedUpdate"', '"GatedUpdate", "PaddedEstimator"'),
            (CONFIG, None, f'\nmodel["type"] = "{SOUND}.PaddedEstimator"\n'),
        ],
        r"pred_flow is .*without padding",
    ),
    "samples that see each other": (
        "batches",
        [(UPDATE, GATE, "residual = residual - residual.mean(0, keepdim=True)\n        " + GATE)],
        r"pred_flow of sample \d differs by .* between the batch and the sample alone.*batch dimension",
    ),
    "a shared tensor": (
        "weights",
        [(UPDATE, HEAD, f"{HEAD}\n        self.tied = self.gate_head[0].weight")],
        r"its state dict can't be saved.*keep a shared tensor under one name",
    ),
    "another result when compiled": (
        "compiled",
        [
            (UPDATE, "from torch import Tensor, nn", "import torch\nfrom torch import Tensor, nn"),
            (UPDATE, GATE, f"residual = residual + float(torch.compiler.is_compiling())\n        {GATE}"),
        ],
        r"pred_flow differs by .* under torch\.compile",
    ),
    "what bfloat16 can't do": (
        "bfloat16",
        [
            (UPDATE, "from torch import Tensor, nn", "import torch\nfrom torch import Tensor, nn"),
            (UPDATE, GATE, f"torch.linalg.det(self.gate_head(hidden)[:, 0, :2, :2])\n        {GATE}"),
        ],
        r"bfloat16 ends with \w+Error.*gated_update\.py, line \d+",
    ),
    "a mask beyond its range": (
        "datasets",
        [item('item["data_samples"].gt_valid *= 2')],
        r"gt_valid lies in 2\.\.2, promised is 0",
    ),
    "a field that nobody declared": (
        "datasets",
        [item('item["data_samples"].gt_depth = item["data_samples"].gt_valid')],
        r"gt_depth is not among the declared FIELDS",
    ),
    "what can't be pickled": (
        "datasets",
        [item("self.reader = lambda: None")],
        r"can't be sent to worker processes.*lambda",
    ),
    "unseeded randomness": (
        "datasets",
        [item('item["data_samples"].gt_flow += __import__("torch").randn(1)')],
        r"gt_flow of sample 0 differs in a worker process.*seeding",
    ),
    "no example set": (
        "types",
        [(DATASET, GET_ITEM, f"    write_example = None\n\n{GET_ITEM}")],
        r"PairsDataset.*write_example",
    ),
    "a wrong kernel": ("ops", [(KERNEL, "1", "2")], r"confidence_gate on cpp-\w+: fails the step 'values in float32'"),
    "a wrong CUDA gradient": (
        "ops",
        [
            (
                OP,
                '_cuda.launch_threads("confidence_gate_backward"',
                'grad_x.zero_()\n        len("confidence_gate_backward"',
            )
        ],
        r"confidence_gate on cuda",
    ),
    "an op without example": ("ops", [(OP, "def example(", "def sample(")], r"has no example\(make\).*odd sizes"),
    "a hard import of something optional": (
        "optional_dependencies",
        [
            (PROJECT, 'test = ["pytest>=8"]', 'test = ["pytest>=8"]\npictures = ["scikit-image>=0.22"]'),
            (UPDATE, "from typing import Any\n", "from typing import Any\n\nimport skimage\n"),
        ],
        r"\[pictures\]: without skimage: .*import it where it is used",
    ),
    "a wheel without its data": (
        "wheel",
        [(PROJECT, '"ffplug.toml", "ops/csrc/*"', '"README.md"')],
        r"the wheel lacks .*ffplug\.toml.*package-data",
    ),
    "a wheel with tests": (
        "wheel",
        [(PROJECT, f'include = ["{SOUND}*"]', 'include = ["*"]')],
        r"the wheel holds tests: tests/.*packages\.find",
    ),
}


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plugin fresh from the template."""
    pytest.importorskip("copier", reason="the template needs ffplug[author]")
    target = tmp_path_factory.mktemp("plugin") / "sound"
    command = [
        warm.python(),
        "-m",
        "ffplug.cli",
        "new",
        "sound",
        str(target),
        "--author",
        "A",
        "--summary",
        "made by a test",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Discovery anew in this test, and as it was afterwards."""
    path = list(sys.path)
    yield monkeypatch
    sys.path[:] = path
    monkeypatch.undo()
    discover.cache_clear()


def broken_copy(sound: Path, folder: Path, edits: list[tuple[str, str | None, str]]) -> tuple[Path, str]:
    """Copy the plugin under a package name of its own, so that many fit into one process, and break it."""
    name = f"ffplug_broken{next(_numbers)}"
    target = folder / name.replace("_", "-")
    shutil.copytree(sound, target)
    for file, old, new in edits:
        path = target / file
        text = path.read_text()
        assert not old or old in text, f"{file} holds no {old!r}: the template changed"
        path.write_text(text + new if old is None else new + text if old == "" else text.replace(old, new))
    (target / SOUND).rename(target / name)
    for path in [path for path in target.rglob("*") if path.is_file()]:
        path.write_text(path.read_text().replace(SOUND, name).replace("ffplug-sound", name.replace("_", "-")))
    return target, name


def findings(subject: Subject, name: str) -> list[str]:
    check = next(check for check in CHECKS if check.name == name)
    found = []
    for case in check.cases(subject):
        try:
            check(subject, case)
        except Finding as finding:
            found.append(str(finding))
        except LeftOut:
            pass
    return found


def test_a_sound_plugin_is_green(sound: Path, tmp_path: Path, fresh: pytest.MonkeyPatch):
    target, name = broken_copy(sound, tmp_path, [])
    fresh.setenv("FFPLUG_PLUGINS", str(target))
    discover.cache_clear()
    subject = Subject(find(name))
    try:
        assert [finding for check in CHECKS for finding in findings(subject, check.name)] == []
        assert all(list(check.cases(subject)) for check in CHECKS if check.name != "optional_dependencies")
    finally:
        subject.close()


@pytest.mark.parametrize(("check", "edits", "advice"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_plugin_gets_advice(check, edits, advice, sound: Path, tmp_path: Path, fresh: pytest.MonkeyPatch):
    target, name = broken_copy(sound, tmp_path, edits)
    fresh.setenv("FFPLUG_PLUGINS", str(target))
    discover.cache_clear()
    subject = Subject(find(name))
    try:
        found = findings(subject, check)
    finally:
        subject.close()
    text = " ".join("\n".join(found).split())
    assert re.search(advice, text), text or "no finding"
    assert all("\n  -> " in finding for finding in found)


def test_a_type_that_needs_a_file_of_the_user_s_is_left_out(sound: Path, tmp_path: Path, fresh: pytest.MonkeyPatch):
    absent = 'from ffplug.errors import CheckpointError\n        raise CheckpointError("given.npz: no such file")'
    target, name = broken_copy(sound, tmp_path, [(UPDATE, HEAD, f"{HEAD}\n        {absent}")])
    fresh.setenv("FFPLUG_PLUGINS", str(target))
    discover.cache_clear()
    subject = Subject(find(name))
    try:
        check = next(check for check in CHECKS if check.name == "types")
        with pytest.raises(LeftOut, match=r"given\.npz: no such file"):
            check(subject, "models:GatedUpdate")
        check(subject, "models:SmoothnessLoss")
    finally:
        subject.close()


def test_every_check_is_shown_to_fail():
    assert {check for check, _, _ in BROKEN.values()} == {check.name for check in CHECKS}


def test_pytest_and_the_command_tell_it_alike(sound: Path, tmp_path: Path):
    target, name = broken_copy(sound, tmp_path, BROKEN["an unused parameter"][1])
    environment = {**os.environ, "FFPLUG_PLUGINS": str(target)}
    run = dict(capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    tests = str(target / "tests" / "test_conformance.py")
    done = subprocess.run([warm.python(), "-m", "pytest", "-q", "-k", "gradients or manifest", tests], **run)
    assert done.returncode == 1 and "trainable parameters get no gradient" in done.stdout, done.stdout
    assert "Traceback" not in done.stdout and "subject.py" not in done.stdout
    command = [sys.executable, "-m", "ffplug.cli", "check", name, "--only", "gradients", "--only", "manifest"]
    done = subprocess.run(command, **run)
    assert done.returncode == 1 and "trainable parameters get no gradient" in done.stdout, done.stdout
    assert re.search(r"gradients\s*│\s*x1", done.stdout) and re.search(r"manifest\s*│\s*14", done.stdout), done.stdout


def test_a_misspelt_check_is_named():
    command = [warm.python(), "-m", "ffplug.cli", "check", "--only", "gradient"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "did you mean 'gradients'" in done.stderr
