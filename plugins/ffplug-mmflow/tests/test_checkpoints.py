"""MMFlow's RAFT and GMA checkpoints give MMFlow's flow in the core's networks."""

import pytest
import torch

import ffplug
from ffplug.apis.checkpoints import save_weights
from ffplug.errors import CheckpointError

MODELS = {
    "mmflow_raft": "raft_large",
    "mmflow_gma": "gma",
    "mmflow_gma_position_only": "gma_position_only",
    "mmflow_gma_position_and_content": "gma_position_and_content",
}
TOLERANCE = 2e-4  # pixels; measured 4e-5 at flows of 16 px


@pytest.mark.parametrize("source", MODELS)
def test_the_flow_is_mmflows(source, mmflow_state, flow_difference):
    model = ffplug.build_model(MODELS[source])
    model.load_state_dict(ffplug.convert_state_dict(mmflow_state(source), source), strict=False)
    assert flow_difference(source, model.predict_flow) < TOLERANCE


@pytest.mark.parametrize(
    "source, part",
    [
        ("mmflow_raft", "encoder.stem.conv"),
        ("mmflow_raft", "gru.1.gates"),
        ("mmflow_raft", "mask_head.1"),
        ("mmflow_gma", "query_key"),
        ("mmflow_gma_position_only", "position.height"),
        ("mmflow_gma_position_and_content", "position.width"),
        ("mmflow_gma_position_and_content", "query_key"),
    ],
)
def test_a_changed_part_is_noticed(source, part, mmflow_state, flow_difference):
    state = ffplug.convert_state_dict(mmflow_state(source), source)
    keys = [key for key in state if part in key and key.endswith("weight")]
    assert keys
    for key in keys:
        state[key] = state[key].flip(1) if state[key].ndim == 4 else state[key] / state[key].shape[1] ** 0.5
    model = ffplug.build_model(MODELS[source])
    model.load_state_dict(state, strict=False)
    assert flow_difference(source, model.predict_flow) > 10 * TOLERANCE


@pytest.mark.parametrize("wrapped", ["published", "training", "parallel"])
def test_a_checkpoint_file_loads_as_it_is(tmp_path, wrapped, mmflow_state, flow_difference):
    state = mmflow_state("mmflow_raft")
    file = tmp_path / "raft_8x2_100k_mixed_368x768.pth"
    meta = {"mmflow_version": "0.5.2", "config": "model = dict(type='RAFT')", "iter": 100_000, "hook_msgs": {}}
    optimizer = {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    content = {
        "published": {"meta": meta, "state_dict": state},
        "training": {"meta": meta, "state_dict": state, "optimizer": optimizer},
        "parallel": {"meta": meta, "state_dict": {f"module.{key}": value for key, value in state.items()}},
    }[wrapped]
    torch.save(content, file)
    model = ffplug.build_model("raft_large", checkpoint=file)
    assert flow_difference("mmflow_raft", model.predict_flow) < TOLERANCE


def test_the_command_line_converts(tmp_path, cli, mmflow_state, flow_difference):
    torch.save({"meta": {}, "state_dict": mmflow_state("mmflow_gma_position_only")}, tmp_path / "gma.pth")
    done = cli("convert", "gma.pth", "gma.safetensors", "--from", "mmflow_gma_position_only", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "left out 1 tensors that the network never reads: decoder.attn.pos_emb.rel_ind" in done.stdout
    model = ffplug.build_model("gma_position_only", checkpoint=tmp_path / "gma.safetensors")
    assert flow_difference("mmflow_gma_position_only", model.predict_flow) < TOLERANCE


def test_another_network_is_refused(tmp_path, mmflow_state):
    state = mmflow_state("mmflow_raft")
    with pytest.raises(CheckpointError, match="missing keys"):
        ffplug.convert_state_dict(state, "mmflow_gma")
    with pytest.raises(CheckpointError, match="unexpected keys"):
        ffplug.convert_state_dict(mmflow_state("mmflow_gma"), "mmflow_raft")
    del state["decoder.gru.conv_z.1.conv.weight"]
    with pytest.raises(CheckpointError, match="missing keys"):
        ffplug.convert_state_dict(state, "mmflow_raft")
    path = save_weights(tmp_path / "weights.safetensors", mmflow_state("mmflow_raft"))
    with pytest.raises(CheckpointError, match="not weights of this model"):
        ffplug.build_model("raft_small", checkpoint=path)
