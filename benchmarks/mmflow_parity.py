"""Run MMFlow's own RAFT and GMA under deterministic weights, and keep what they give as golden files.

It runs in an environment of its own, with `mmflow` 0.5.2 from PyPI and neither FFPlug nor compiled ops; how to make one
is told in plugins/ffplug-mmflow/tests/golden/README.md, which this script writes too. Networks, preprocessing and
padding are MMFlow's, built from the configs that its wheel ships; RAFT and GMA need no op of mmcv, so a stand-in for
`mmcv.ops` that has names and no function is enough to import them.

    python benchmarks/mmflow_parity.py
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "plugins" / "ffplug-mmflow" / "tests" / "golden"
SIZE = (133, 157)
"""Height and width: padding is needed on all four sides."""

STEP = 2
"""Every how many rows and columns of the flow are kept."""

CASES = {
    "mmflow_raft": "raft/raft_8x2_100k_flyingthings3d_400x720.py",
    "mmflow_gma": "gma/gma_8x2_120k_flyingthings3d_400x720.py",
    "mmflow_gma_position_only": "gma/gma_p-only_8x2_120k_flyingthings3d_400x720.py",
    "mmflow_gma_position_and_content": "gma/gma_plus-p_8x2_120k_flyingthings3d_400x720.py",
}
"""Config of each case, by the name of FFPlug's converter for it."""

ITERATIONS = 6

SCALES = {"attn.to_qk.weight": 3.0, "aggregator.gamma": 10.0, "rel_height.weight": 2.0, "rel_width.weight": 2.0}
"""Factors on the filled tensors whose keys end so: attention that is far from uniform, and that is seen in the flow."""

README = """\
# Golden outputs of MMFlow

Written by `benchmarks/mmflow_parity.py` of this repository with Python {python}, mmflow {mmflow}, mmcv {mmcv},
torch {torch} and numpy {numpy}. To redo them:

```bash
python -m venv parity && . parity/bin/activate
pip install 'setuptools<81' wheel 'torch=={torch}' 'torchvision=={torchvision}' 'numpy=={numpy}' opencv-python-headless
pip install matplotlib scipy
MMCV_WITH_OPS=0 pip install --no-build-isolation mmcv=={mmcv}
pip install mmflow=={mmflow}
python benchmarks/mmflow_parity.py
```

One folder a case, named as the source that `ffplug convert --from` takes:

- `keys.json`: keys and shapes of MMFlow's state dict, as its checkpoints have them. Every tensor is filled from its key
  alone (`ffplug/testing/golden.py`), so no weights are kept. `scales.json` holds the factors on some of them.
- `case1.npz`: `seeds`, `size` and `iterations` of the run, and `flow`, every {step}nd row and column of MMFlow's
  answer, in pixels. The frames are `image(seed, (height, width, 3))` of the same module, cut to uint8, RGB; MMFlow got
  them in its own order (BGR), and padded and normalised them for itself.

| case | config of MMFlow | mean length of the flow |
| --- | --- | --- |
{rows}
"""


def load_rule() -> types.ModuleType:
    """Import ffplug/testing/golden.py by its path, for FFPlug is not installed here."""
    spec = importlib.util.spec_from_file_location("golden", ROOT / "ffplug" / "testing" / "golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stand_in_for_ops() -> None:
    """Put a module in the place of ``mmcv.ops`` whose names exist and whose types compute nothing."""
    module = types.ModuleType("mmcv.ops")
    for name in ("Correlation", "DeformConv2d"):
        setattr(module, name, type(name, (torch.nn.Module,), {}))
    sys.modules["mmcv.ops"] = module


def scale(key: str) -> float:
    """The factor on the filled tensor ``key``; one that keeps integers as they are."""
    return next((factor for end, factor in SCALES.items() if key.endswith(end)), 1)


def run_case(config_file: Path, rule: types.ModuleType) -> tuple[dict[str, list[int]], np.ndarray]:
    """Keys and shapes of the network's state dict, and its flow H×W×2."""
    import mmcv
    from mmcv.parallel import collate
    from mmflow.datasets.pipelines import Compose
    from mmflow.models import build_flow_estimator

    config = mmcv.Config.fromfile(str(config_file))
    config.model.test_cfg = {"iters": ITERATIONS}
    model = build_flow_estimator(config.model).eval()
    model.load_state_dict({key: value * scale(key) for key, value in rule.fill(model.state_dict()).items()})
    tests = config.data.test
    steps = (tests.datasets[0] if tests.type == "ConcatDataset" else tests).pipeline
    steps = [step for step in steps if not step.type.startswith("Load")]
    steps[-1].meta_keys = ["ori_shape", "img_shape", "pad_shape", "pad", "scale_factor"]
    frames = [rule.image(seed, (*SIZE, 3)).astype(np.uint8) for seed in (1, 2)]
    sample: dict[str, Any] = {f"img{index}": frame[..., ::-1].copy() for index, frame in enumerate(frames, 1)}
    shape = frames[0].shape
    sample.update(img_fields=["img1", "img2"], ori_shape=shape, img_shape=shape, pad_shape=shape)
    sample.update(scale_factor=np.array([1.0, 1.0]))
    batch = collate([Compose(steps)(sample)], samples_per_gpu=1)
    with torch.no_grad():
        result = model(test_mode=True, imgs=batch["imgs"].data[0], img_metas=batch["img_metas"].data[0])
    return {key: list(value.shape) for key, value in model.state_dict().items()}, result[0]["flow"]


def main() -> None:
    """Run all cases and write their files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the golden files")
    out = parser.parse_args().out
    rule = load_rule()
    stand_in_for_ops()
    import mmcv
    import mmflow

    configs = Path(mmflow.__file__).parent / ".mim" / "configs"
    rows = []
    for name, config in CASES.items():
        keys, flow = run_case(configs / config, rule)
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "keys.json").write_text(json.dumps(keys, indent=0) + "\n")
        kept = np.ascontiguousarray(flow[::STEP, ::STEP])
        np.savez_compressed(folder / "case1.npz", flow=kept, seeds=(1, 2), size=SIZE, iterations=ITERATIONS, step=STEP)
        length = float(np.linalg.norm(flow, axis=-1).mean())
        rows.append(f"| `{name}` | `{config}` | {length:.2f} px |")
        print(f"{name}: {len(keys)} tensors, flow {flow.shape}, mean length {length:.2f} px")
    (out / "scales.json").write_text(json.dumps(SCALES, indent=1) + "\n")
    versions = {"mmflow": mmflow.__version__, "mmcv": mmcv.__version__, "torch": torch.__version__.partition("+")[0]}
    versions |= {"torchvision": importlib.metadata.version("torchvision").partition("+")[0]}
    versions |= {"numpy": np.__version__, "python": platform.python_version()}
    (out / "README.md").write_text(README.format(rows="\n".join(rows), step=STEP, **versions))


if __name__ == "__main__":
    main()
