"""A network of ptlflow and FFPlug's, with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import ffplug


def paired(
    theirs_name: str, ours_name: str, parts: Sequence[str], iterations: int, **options: object
) -> tuple[dict[str, Callable[[Tensor, Tensor], Tensor]], dict[str, Tensor]]:
    """Build both networks with random weights of ptlflow's.

    Args:
        theirs_name: of the model in ptlflow.
        ours_name: of the model, and of its converter, in FFPlug.
        parts: first words of the keys in ptlflow's state dict that are the network's.
        iterations: of the recurrent loop.
        **options: further arguments of ptlflow's model.

    Returns:
        The functions by name, and ptlflow's weights.
    """
    import ptlflow

    torch.manual_seed(0)
    theirs = ptlflow.get_model_reference(theirs_name)(**options).eval()
    theirs.iters = iterations
    state = {key: value for key, value in theirs.state_dict().items() if key.split(".")[0] in parts}
    ours = ffplug.build_model(ours_name)
    ours.load_state_dict(ffplug.convert_state_dict(state, ours_name), strict=False)

    def run_ptlflow(first: Tensor, second: Tensor) -> Tensor:
        images = torch.stack((first, second), dim=1).flip(2) / 255  # BGR in 0..1
        return theirs({"images": images})["flows"][:, 0]

    def run_ffplug(first: Tensor, second: Tensor) -> Tensor:
        return ours.predict_flow(first, second, iterations=iterations)["flow"]

    return {"ffplug": run_ffplug, "ptlflow": run_ptlflow}, state
