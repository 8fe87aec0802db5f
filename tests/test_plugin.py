"""Plugins are found without being imported, and a broken one says what is wrong and breaks no other."""

import subprocess
import sys
import textwrap

import pytest
import warm

from ffplug import plugin as plugin_module
from ffplug.errors import PluginError
from ffplug.plugin import discover, list_models, load, plugins

MANIFEST = """
[plugin]
name = "{name}"
package = "{package}"
summary = "made by a test"
api = "{api}"

[components]
models = {models}

[models]
toy_net = "{package}.configs.toy_net"
"""

REGISTRY = """
from mmengine.registry import MODELS as ROOT, Registry
MODELS = Registry("model", parent=ROOT, scope="{package}", locations=["{package}.nets"])
"""


def write_plugin(folder, package="ffplug_toy", api=">=1,<2", manifest=None, nets=None, models='["ToyNet"]'):
    root = folder / package
    (root / "configs").mkdir(parents=True)
    (root / "configs" / "__init__.py").write_text("")
    (root / "configs" / "toy_net.py").write_text(f'model = dict(type="{package}.ToyNet", width=3)\n')
    (root / "__init__.py").write_text("")
    (root / "registry.py").write_text(REGISTRY.format(package=package))
    (root / "nets.py").write_text(
        nets
        or textwrap.dedent(f"""
        from torch import nn
        from {package}.registry import MODELS

        @MODELS.register_module()
        class ToyNet(nn.Module):
            def __init__(self, width):
                super().__init__()
                self.width = width
    """)
    )
    text = MANIFEST.format(name=package.replace("_", "-"), package=package, api=api, models=models)
    (root / "ffplug.toml").write_text(text if manifest is None else manifest)
    return root


@pytest.fixture
def fresh(monkeypatch):
    """Discovery anew in this test, and as it was afterwards."""
    path = list(sys.path)
    discover.cache_clear()
    yield monkeypatch
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("ffplug_t")]:
        del sys.modules[name]
    discover.cache_clear()


def found(package):
    return next(plugin for plugin in discover() if plugin.package == package)


def test_plugin_from_a_folder(fresh, tmp_path):
    write_plugin(tmp_path, "ffplug_toy1")
    fresh.setenv("FFPLUG_PLUGINS", str(tmp_path))
    plugin = found("ffplug_toy1")
    assert plugin.error is None and plugin.version == "not installed"
    assert "ffplug_toy1" not in sys.modules
    assert "toy_net" in list_models("*toy*")
    import ffplug

    assert ffplug.build_model("toy-net").width == 3


def test_a_plugin_from_a_folder_serves_types_and_bases_at_first_use(fresh, tmp_path):
    write_plugin(tmp_path / "plugins", "ffplug_toy12")
    write_plugin(tmp_path / "plugins", "ffplug_toy13")
    fresh.setenv("FFPLUG_PLUGINS", str(tmp_path / "plugins"))
    import ffplug

    assert ffplug.build_model({"type": "ffplug_toy12.ToyNet", "width": 4}).width == 4
    discover.cache_clear()
    sys.path.remove(str(tmp_path / "plugins"))
    config = tmp_path / "mine.py"
    config.write_text(
        "from mmengine.config import read_base\nwith read_base():\n    from ffplug_toy13.configs.toy_net import *\n"
    )
    assert ffplug.build_model(config).width == 3


def test_disabled_plugin(fresh, tmp_path):
    write_plugin(tmp_path, "ffplug_toy2")
    fresh.setenv("FFPLUG_PLUGINS", str(tmp_path))
    fresh.setenv("FFPLUG_DISABLE", "toy2")
    assert all(plugin.package != "ffplug_toy2" for plugin in discover())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"manifest": "[plugin\n"}, "not TOML"),
        ({"manifest": "[plugin]\nname = 'x'\n"}, "plugin.package is missing"),
        ({"api": ">=9"}, "asks for plugin API >=9, this ffplug has 1"),
        (
            {"manifest": "[plugin]\nname='x'\npackage='ffplug_toy3'\napi='>=1'\n[components]\nmodel=['A']"},
            "did you mean 'models'",
        ),
        (
            {"manifest": "[plugin]\nname='x'\npackage='ffplug_toy3'\napi='>=1'\n[commands]\nsay='ffplug_toy3.say'"},
            "commands.say must be { module =",
        ),
    ],
)
def test_broken_manifest_is_told_and_breaks_no_other(fresh, tmp_path, changes, message):
    write_plugin(tmp_path, "ffplug_toy3", **changes)
    fresh.setenv("FFPLUG_PLUGINS", str(tmp_path))
    assert message in found("ffplug_toy3").error
    assert any(plugin.package == "ffplug" for plugin in plugins())
    with pytest.raises(PluginError, match="ffplug"):
        load(found("ffplug_toy3"))


def test_plugin_that_fails_to_import(fresh, tmp_path):
    write_plugin(tmp_path, "ffplug_toy4", nets="import no_such_module_anywhere\n")
    fresh.setenv("FFPLUG_PLUGINS", str(tmp_path))
    with pytest.raises(
        PluginError, match=r"ffplug-toy4 fails to import: ModuleNotFoundError: .*no_such_module_anywhere"
    ):
        load(found("ffplug_toy4"))
    others = {plugin.package for plugin in plugins()} - {"ffplug", "ffplug_toy4"}
    fresh.setenv("FFPLUG_DISABLE", ",".join(others))  # importing each in a process of its own takes long
    for options, message in (
        ([], "nets.py, line 1: imports 'no_such_module_anywhere', which is not installed"),
        (["--check"], "BROKEN: plugin ffplug-toy4 fails to import"),
    ):
        command = [warm.python(), "-m", "ffplug.cli", "list", *options]
        listed = subprocess.run(command, capture_output=True, text=True)
        assert message in listed.stdout
        assert listed.stdout.count("BROKEN") == 1 and listed.returncode == 0


def test_importing_ffplug_is_light():
    program = (
        "import sys, ffplug, ffplug.plugin, ffplug.cli; ffplug.plugin.discover(); "
        "print([m for m in ('torch', 'mmengine') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("specifier", "fits"), [(">=1,<2", True), ("==1", True), (">1", False), ("<1", False), ("1", False), (">=x", False)]
)
def test_api_range(specifier, fits):
    assert plugin_module._in_range(1, specifier) is fits
