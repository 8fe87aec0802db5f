"""The command line: light, with one clear line for each error."""

import json
import os
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from golden_cases import GOLDEN, filled

import ffplug
from ffplug.cli import COMMANDS, cli, run, spread_options


def ffplug_command(*arguments):
    return subprocess.run([sys.executable, "-m", "ffplug.cli", *arguments], capture_output=True, text=True)


def test_help_names_every_command_and_loads_no_torch():
    program = (
        "import sys; from ffplug.cli import cli; cli.main(['--help'], standalone_mode=False); "
        "sys.exit('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0
    assert all(name in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help(name):
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output


def test_errors_are_one_line():
    result = ffplug_command("config", "raft_larg")
    assert result.returncode == 2
    assert result.stderr.startswith(
        "error: no config file and no model or recipe named 'raft_larg'; did you mean 'raft_large' or "
    )
    assert result.stderr.count("\n") == 1
    assert "Traceback" in ffplug_command("config", "raft_larg", "--debug").stderr
    assert "did you mean 'config'" in ffplug_command("cnofig").stderr


def test_list_info_doctor():
    listed = CliRunner().invoke(cli, ["list"]).output
    assert f"ffplug {ffplug.__version__}" in listed and "RecurrentFlowEstimator" in listed
    assert "raft_large" in CliRunner().invoke(cli, ["list", "--models"]).output.split()
    info = CliRunner().invoke(cli, ["info", "ffplug"]).output
    assert "ffplug.RAFTUpdate" in info
    report = json.loads(CliRunner().invoke(cli, ["doctor", "--json"]).output)
    assert (
        report["packages"]["torch"] == torch.__version__.split("+")[0]
        or report["packages"]["torch"] == torch.__version__
    )
    assert "torch" in report["op backends"]["ffplug.corr_lookup"]
    assert report["plugins"][f"ffplug {ffplug.__version__}"] == "ok"


def test_config_with_origin():
    output = CliRunner().invoke(cli, ["config", "gma", "--origin", "--cfg-options", "model.iterations=3"]).output
    line = next(line for line in output.splitlines() if line.startswith("model.iterations"))
    assert line == "model.iterations = 3  # --cfg-options"
    assert any(line.endswith("models/raft_large.py") for line in output.splitlines())


def test_several_values_after_one_cfg_options():
    spread = spread_options(["train", "c.py", "--cfg-options", "a.b=1", "c=2", "--seed", "3"])
    assert spread == ["train", "c.py", "--cfg-options", "a.b=1", "--cfg-options", "c=2", "--seed", "3"]
    assert spread_options(["x", "--out", "a=b"]) == ["x", "--out", "a=b"]


def test_convert(tmp_path):
    state = {f"module.{key}": value for key, value in filled(GOLDEN / "raft_small" / "keys.json").items()}
    torch.save(state, tmp_path / "raft-small.pth")
    out = tmp_path / "raft_small.safetensors"
    assert run(cli, ["convert", str(tmp_path / "raft-small.pth"), str(out), "--from", "raft_small"], "ffplug") == 0
    frames = torch.rand(2, 1, 3, 64, 64) * 255
    direct = ffplug.build_model("raft_small", tmp_path / "raft-small.pth").predict_flow(*frames, iterations=2)
    converted = ffplug.build_model("raft_small", out).predict_flow(*frames, iterations=2)
    torch.testing.assert_close(direct["flow"], converted["flow"])


class Evil:
    def __reduce__(self):
        return (open, ("evil.txt", "w"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
        (lambda path: path.write_bytes(b"PK\x03\x04 truncated"), "truncated or no checkpoint"),
        (
            lambda path: torch.save({"state_dict": {"a": torch.ones(1)}, "x": Evil()}, path),
            "could run code, and is refused",
        ),
        (lambda path: torch.save({"epoch": 3}, path), "holds no tensors"),
        (lambda path: None, "does not exist"),
        (lambda path: torch.save({"conv.weight": torch.ones(1)}, path), "unexpected keys (conv.weight)"),
    ],
)
def test_bad_checkpoints(tmp_path, monkeypatch, capsys, make, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    make(path)
    assert run(cli, ["convert", str(path), str(tmp_path / "out.safetensors"), "--from", "raft_small"], "ffplug") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out.safetensors").exists() and not (tmp_path / "evil.txt").exists()


def test_truncated_checkpoint(tmp_path, capsys):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.randn(1000)}, path)
    path.write_bytes(path.read_bytes()[:1500])
    assert run(cli, ["convert", str(path), str(tmp_path / "out.safetensors"), "--from", "raft_small"], "ffplug") == 2
    assert "truncated or no checkpoint" in capsys.readouterr().err


def test_weights_of_another_model_are_refused(tmp_path):
    from ffplug.apis.checkpoints import save_weights
    from ffplug.errors import CheckpointError

    path = save_weights(tmp_path / "small.safetensors", ffplug.build_model("raft_small").state_dict())
    with pytest.raises(CheckpointError, match=r"small.safetensors: not weights of this model: .* keys missing"):
        ffplug.build_model("raft_large", path)


PLUGIN_COMMAND = """
import click

@click.command()
@click.argument("word")
def command(word):
    "Say a word."
    click.echo(word)
"""


def test_a_plugin_brings_a_command(tmp_path):
    package = tmp_path / "ffplug_speaker"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "say.py").write_text(PLUGIN_COMMAND)
    (package / "ffplug.toml").write_text(
        '[plugin]\nname = "ffplug-speaker"\npackage = "ffplug_speaker"\napi = ">=1"\n[commands]\n'
        'say = { module = "ffplug_speaker.say", help = "Say it." }\n'
        'lost = { module = "ffplug_speaker.nowhere", help = "Be nowhere." }\n'
        'list = { module = "ffplug_speaker.say", help = "Not the core\'s." }\n'
    )
    environment = {**os.environ, "FFPLUG_PLUGINS": str(tmp_path)}

    def ffplug(*arguments):
        command = [sys.executable, "-m", "ffplug.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    program = (
        "import sys; from ffplug.cli import cli; cli.main(['--help'], standalone_mode=False); "
        "sys.exit('torch' in sys.modules or 'ffplug_speaker' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert shown.returncode == 0 and "Say it." in shown.stdout and "Not the core's." not in shown.stdout
    assert ffplug("say", "hello").stdout == "hello\n"
    assert "did you mean 'say'?" in ffplug("sya").stderr
    assert ffplug("lost").stderr.startswith(
        "error: the command 'lost' is ffplug_speaker.nowhere, which can't be used: "
    )
    assert "ffplug-speaker" in ffplug("list").stdout
    assert "ffplug say  Say it." in ffplug("info", "speaker").stdout
