"""The references of the ops against plain definitions."""

import numpy as np
import pytest
import torch

from ffplug.ops import convex_upsample


def test_convex_upsample_golden():
    from golden_cases import GOLDEN

    path = GOLDEN / "flow_data" / "case1.npz"
    if not path.exists():
        pytest.skip("golden flow_data is not here")
    data = np.load(path)
    flow, mask = torch.from_numpy(data["up_flow"]), torch.from_numpy(data["up_mask"])
    torch.testing.assert_close(convex_upsample(flow, mask), torch.from_numpy(data["up_out"]), atol=1e-4, rtol=1e-4)


def test_convex_upsample_of_a_constant():
    flow = torch.full((1, 2, 5, 6), 1.5)
    fine = convex_upsample(flow, torch.randn(1, 576, 5, 6))
    torch.testing.assert_close(fine[..., 8:-8, 8:-8], torch.full((1, 2, 24, 32), 12.0))
