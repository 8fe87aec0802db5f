import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ffplug_srflownet.losses import (
    FlowDifferenceLoss,
    FlowRegularizer,
    GradientLoss,
    MaskLoss,
    TotalVariationLoss,
    gradient,
    gradient_mask,
)

from ffplug.config import load_config
from ffplug.errors import ConfigError, DataError
from ffplug.registry import MODELS

GOLDEN = json.loads((Path(__file__).parent / "golden" / "flow_reg.json").read_text())
TERMS = {
    "mask": lambda operator: MaskLoss(1.0),
    "mask_zero_background": lambda operator: MaskLoss(1.0, zero_background=True),
    "diff": lambda operator: FlowDifferenceLoss(1.0),
    "grad": lambda operator: GradientLoss(1.0, operator=operator),
    "tv": lambda operator: TotalVariationLoss(1.0, operator=operator),
    "tv_edge_beta10": lambda operator: TotalVariationLoss(1.0, operator=operator, edge=10.0),
}
ALL = [
    MaskLoss(),
    MaskLoss(zero_background=True),
    GradientLoss(),
    GradientLoss(operator="sobel", form="magnitude"),
    GradientLoss(form="squared", smooth_below=1.0),
    TotalVariationLoss(),
    TotalVariationLoss(operator="sobel", edge=10.0, keep_creases=True),
    FlowDifferenceLoss(robust=True),
    FlowDifferenceLoss(between="iterations"),
]


def case() -> tuple[dict, dict]:
    """The draws of the golden numbers."""
    random = np.random.RandomState(GOLDEN["seed"])
    batch, height, width = GOLDEN["B"], GOLDEN["H"], GOLDEN["W"]
    flow = random.uniform(-3, 3, (batch, 2, height, width)).astype(np.float32)
    truth = random.uniform(-2, 2, flow.shape).astype(np.float32)
    mask = random.uniform(size=(batch, 1, height, width)) > 0.35
    image = random.uniform(size=(batch, 3, height, width)).astype(np.float32)
    outputs = {"flows": [torch.from_numpy(flow)], "image1": torch.from_numpy(image) * 255}
    targets = {"flow": torch.from_numpy(truth), "foreground": torch.from_numpy(mask[:, 0])}
    return outputs, targets | {"valid": torch.ones(batch, height, width)}


def value(loss: FlowRegularizer, outputs: dict, targets: dict) -> torch.Tensor:
    [term] = loss(outputs, targets).values()
    return term


@pytest.mark.parametrize("operator", ["diff", "sobel"])
@pytest.mark.parametrize("term", TERMS)
def test_terms_equal_the_reference(term: str, operator: str):
    found = float(value(TERMS[term](operator), *case()))
    assert found == pytest.approx(GOLDEN["values"][operator][term], rel=1e-6)


@pytest.mark.parametrize("operator", ["diff", "sobel"])
@pytest.mark.parametrize("term", TERMS)
def test_the_truth_costs_nothing_but_its_variation(term: str, operator: str):
    outputs, targets = case()
    targets["flow"] *= targets["foreground"][:, None]  # the background stands still
    outputs["flows"] = [targets["flow"].clone()]
    found = float(value(TERMS[term](operator), outputs, targets))
    assert found > 0.01 if "tv" in term else found == 0


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("inside", [False, True])
def test_an_empty_mask_has_finite_gradients(loss: FlowRegularizer, inside: bool):
    outputs, targets = case()
    targets["foreground"] = torch.full_like(targets["foreground"], inside)
    for valid in (1.0, 0.0):
        targets["valid"] = torch.full_like(targets["valid"], valid)
        flow = outputs["flows"][0].clone().requires_grad_()
        term = value(loss, {**outputs, "flows": [flow]}, targets)
        (slope,) = torch.autograd.grad(term, flow)
        assert term.isfinite() and slope.isfinite().all()


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: type(loss).__name__)
def test_autocast_gives_the_float32_value(loss: FlowRegularizer):
    outputs, targets = case()
    plain = value(loss, outputs, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = value(loss, outputs, targets)
    assert under.dtype == torch.float32 and torch.equal(under, plain)


def test_unknown_truth_is_left_out_whatever_it_holds():
    outputs, targets = case()
    hole = torch.zeros_like(targets["foreground"])
    hole[:, 5:9, 5:9] = True
    targets["valid"][hole] = 0
    values = []
    for filling in (0.0, float("nan"), 1e9):
        truth = torch.where(hole[:, None], filling, targets["flow"])
        values.append([float(value(loss, outputs, {**targets, "flow": truth})) for loss in ALL])
    assert np.isfinite(values).all() and values[0] == values[1] == values[2]


def test_a_ramp_has_its_slopes_and_masks_shrink():
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(8.0), indexing="ij")
    ramp = (0.5 * columns - 2 * rows)[None, None]
    for operator in ("diff", "sobel"):
        along, down = gradient(ramp, operator)
        assert (along[..., 1:-1, 1:-1] == 0.5).all() and (down[..., 1:-1, 1:-1] == -2).all()
    mask = torch.ones(1, 1, 6, 8)
    assert gradient_mask(mask, "sobel")[0].all()  # what lies outside of the picture counts as inside
    mask[..., 2, 3] = 0
    along, down = gradient_mask(mask, "diff")
    assert along.shape[-1] == 7 and (1 - along).sum() == 2 and (1 - down).sum() == 2
    assert (1 - gradient_mask(mask, "sobel")[0]).sum() == 9


def test_iterations_weigh_as_asked():
    outputs, targets = case()
    flow = outputs["flows"][0]
    outputs["flows"] = [flow + 1, flow]
    one = [float(value(MaskLoss(1.0), {**outputs, "flows": [each]}, targets)) for each in outputs["flows"]]
    assert float(value(MaskLoss(1.0), outputs, targets)) == pytest.approx(one[1])
    every = MaskLoss(1.0, regularise="all", gamma=0.5)
    assert float(value(every, outputs, targets)) == pytest.approx(0.5 * one[0] + one[1])
    between = FlowDifferenceLoss(1.0, between="iterations")
    assert float(value(between, outputs, targets)) == pytest.approx(1.0, rel=1e-5)


def test_masks_come_from_where_they_are_asked_for():
    outputs, targets = case()
    image = torch.full_like(outputs["image1"], 80.0)
    image[..., 16:] += 100.0  # one edge: the Sobel operator sees it in two columns
    outputs["image1"] = image
    error = (outputs["flows"][0] - targets["flow"]).abs()
    where = torch.ones_like(error)
    where[..., 15:17] = 0
    found = value(FlowDifferenceLoss(1.0, mask="textureless"), outputs, targets)
    torch.testing.assert_close(found, (error * where).sum() / where.sum())
    torch.testing.assert_close(value(FlowDifferenceLoss(1.0, mask=None), outputs, targets), error.mean())
    targets["lips"] = targets["foreground"]
    assert value(FlowDifferenceLoss(1.0, mask="lips"), outputs, targets) == value(
        FlowDifferenceLoss(1.0), outputs, targets
    )
    with pytest.raises(DataError, match="the samples have no gt_hair"):
        value(FlowDifferenceLoss(mask="hair"), outputs, targets)


def test_wrong_options_are_named():
    with pytest.raises(ConfigError, match="did you mean 'sobel'"):
        GradientLoss(operator="sobl")
    with pytest.raises(ConfigError, match="regularise='first'"):
        MaskLoss(regularise="first")
    with pytest.raises(ConfigError, match="operator='sobel'"):
        GradientLoss(form="magnitude")


def _narrow(config: dict) -> dict:
    """The model with two iterations; the parts keep their widths."""
    return dict(config, iterations=2, test_iterations=2)


@pytest.mark.parametrize("name", ["srflownet", "srflownet_raft", "srflownet_gma", "flowformer"])
def test_any_model_takes_a_step_with_the_losses(name: str):
    if name == "flowformer":
        pytest.importorskip("ffplug_flowformer")
    config = load_config(name).model
    if name == "flowformer":
        config["losses"].extend(load_config("srflownet").model["losses"][1:])
    torch.manual_seed(0)
    model = MODELS.build(_narrow(config)).train()
    batch = model.data_preprocessor(model.example_batch(1), training=True)
    terms = model(**batch, mode="loss")
    names = {"loss", "loss_mask", "loss_gradient", "loss_variation", "loss_difference"}
    assert names <= set(terms) and all(float(terms[term]) > 0 for term in names)
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    sum(terms[term] for term in names - {"loss"}).backward()  # the regularisers alone move the network
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    moved = [key for key, parameter in model.named_parameters() if not torch.equal(parameter, before[key])]
    assert any(key.startswith("encoder") for key in moved) and any(key.startswith("decoder") for key in moved)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_further_decoder_s_flow_is_held_to_its_own_truth():
    outputs, targets = case()
    outputs = {"flows": [targets["flow"]], "head_flows": outputs["flows"], "image1": outputs["image1"]}
    targets |= {"head_flow": targets["flow"], "head_valid": targets["valid"], "flow": torch.zeros_like(targets["flow"])}
    terms = FlowDifferenceLoss(1.0, name="head")(outputs, targets)
    assert list(terms) == ["head_loss_difference"]
    assert float(terms["head_loss_difference"]) == pytest.approx(GOLDEN["values"]["diff"]["diff"], rel=1e-6)


def test_decflow_takes_them_by_inheritance(tmp_path: Path):
    """A config that inherits from both plugins: the four losses on the facial flow, one more on the head's."""
    pytest.importorskip("ffplug_decflow")
    (tmp_path / "regularised.py").write_text(
        "from mmengine.config import read_base\n\n"
        "with read_base():\n"
        "    from ffplug_decflow.configs.decflow_small import *\n"
        "    from ffplug_srflownet.configs.regularisers import losses as _losses\n\n"
        'model["losses"].extend(_losses)\n'
        'model["losses"].append(dict(type="ffplug_srflownet.TotalVariationLoss", weight=0.1, name="head"))\n'
    )
    torch.manual_seed(0)
    model = MODELS.build(_narrow(load_config(str(tmp_path / "regularised.py")).model)).train()
    batch = model.data_preprocessor(model.example_batch(1), training=True)
    terms = model(**batch, mode="loss")
    names = {"loss_mask", "loss_gradient", "loss_variation", "loss_difference", "head_loss_variation"}
    assert names <= set(terms) and all(float(terms[term]) > 0 for term in names)
    terms["head_loss_variation"].backward()
    moved = {name.split(".")[0] for name, part in model.named_parameters() if part.grad is not None and part.grad.any()}
    assert "decoders" in moved and "encoder" in moved
