"""RAFT-large: ptlflow's and torchvision's."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import Tensor

from peers.ptlflow_models import paired

TO_TORCHVISION = [
    (r"fnet\.", "feature_encoder."),
    (r"cnet\.", "context_encoder."),
    (r"(encoder\.)conv1\.", r"\1convnormrelu.0."),
    (r"(encoder\.)norm1\.", r"\1convnormrelu.1."),
    (r"^((?:feature|context)_encoder\.)conv2\.", r"\1conv."),
    (r"(layer\d\.\d\.)conv(\d)\.", r"\1convnormrelu\2.0."),
    (r"(layer\d\.\d\.)norm([12])\.", r"\1convnormrelu\2.1."),
    (r"update_block\.encoder\.convc(\d)\.", r"update_block.motion_encoder.convcorr\1.0."),
    (r"update_block\.encoder\.convf(\d)\.", r"update_block.motion_encoder.convflow\1.0."),
    (r"update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"update_block\.gru\.conv([zrq])(\d)\.", r"update_block.recurrent_block.convgru\2.conv\1."),
    (r"update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"update_block\.mask\.2\.", "mask_predictor.conv."),
]


def torchvision_key(key: str) -> str:
    """The key that torchvision's RAFT has for one of princeton-vl's."""
    for pattern, replacement in TO_TORCHVISION:
        key = re.sub(pattern, replacement, key)
    return key


def implementations(iterations: int) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """FFPlug's, ptlflow's and torchvision's RAFT with equal weights."""
    from torchvision.models.optical_flow import raft_large

    from ffplug.models.padding import pad, padding_for, unpad

    functions, state = paired("raft", "raft_large", ("fnet", "cnet", "update_block"), iterations)
    vision = raft_large(weights=None).eval()
    renamed = {torchvision_key(key): value for key, value in state.items() if ".norm3." not in key}
    vision.load_state_dict(renamed, strict=False)
    missing = set(vision.state_dict()) - set(renamed)
    if any(not key.endswith("num_batches_tracked") for key in missing):
        raise SystemExit(f"torchvision's RAFT has keys that ptlflow's has not: {sorted(missing)[:5]}")

    def run_torchvision(first: Tensor, second: Tensor) -> Tensor:
        padding = padding_for(*first.shape[-2:], 8)
        a, b = (pad(frame, padding) / 127.5 - 1 for frame in (first, second))
        return unpad(vision(a, b, num_flow_updates=iterations)[-1], padding)

    return {**functions, "torchvision": run_torchvision}
