"""The documentation says what is so: its blocks run, its commands parse, its links lead somewhere.

The blocks of README.md and of each page of docs/ run in order, in a folder of the page's own that holds what ``world``
makes (those of the plugins' READMEs are checked only):

- ``python`` blocks share one process and one namespace, which has ``image1``, ``image2`` and ``image3``;
- a block with a title, as in ```` ```python title="my_part.py" ````, is written to the file of that name;
- ``bash`` blocks run by ``bash -eu``;
- a block under ``<!-- not run: REASON -->`` does not run, for a reason of ``REASONS``.

Run or not, Python is compiled, TOML, YAML and JSON are parsed, and every ``ffplug`` command is checked by its own
parser, with the names of models, recipes and settings that stand in it.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
import warm
import yaml
from golden_cases import filled
from markdown_it import MarkdownIt

from ffplug.cli import cli, spread_options
from ffplug.errors import FFPlugError
from ffplug.plugin import config_names, discover, plugins

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
RUN = [ROOT / "README.md", *DOCS]
PAGES = [*RUN, *sorted(ROOT.glob("plugins/*/README.md"))]

REASONS = {
    "installs": "it changes the environment that it runs in",
    "published weights": "it needs files that their authors give out",
    "real data": "it needs a public data set",
    "minutes": "it takes minutes",
    "demo": "it goes on with what `make demo` has made",
    "variation": "it is another form of a command that runs here or on another page",
    "several machines": "it needs several machines, GPUs or a scheduler",
    "fragment": "it is part of a file, or shows what a page before it built",
}
LANGUAGES = {"", "csv", "python", "bash", "toml", "yaml", "json", "cpp", "text", "html", "ini"}
SECONDS = 900


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    title: str | None
    text: str
    reason: str | None

    @property
    def where(self) -> str:
        return f"{self.page}, line {self.line}"


def read_blocks(path: Path) -> list[Block]:
    blocks, reason = [], None
    for token in MarkdownIt("commonmark").parse(path.read_text()):
        if token.type == "fence":
            language, _, attributes = token.info.strip().partition(" ")
            title = re.search(r'title="([^"]+)"', attributes)
            page = str(path.relative_to(ROOT))
            blocks.append(Block(page, token.map[0] + 1, language, title and title[1], token.content, reason))
        comment = re.fullmatch(r"<!-- not run: (.*) -->\s*", token.content) if token.type == "html_block" else None
        reason = comment and comment[1]
    return blocks


BLOCKS = {str(path.relative_to(ROOT)): read_blocks(path) for path in PAGES}
ALL = [block for blocks in BLOCKS.values() for block in blocks]


def steps(page: str) -> list[Block]:
    """The blocks of a page that run or are written to files."""
    return [
        block
        for block in BLOCKS[page]
        if block.reason is None and (block.language in ("python", "bash") or block.title)
    ]


@pytest.fixture(autouse=True, scope="module")
def plugins_of_the_repository():
    """See all plugins of the repository, installed or not."""
    folders = (str(path.parents[1]) for path in ROOT.glob("plugins/ffplug-*/*/ffplug.toml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFPLUG_PLUGINS", os.pathsep.join(folders))
        discover.cache_clear()
        yield
    discover.cache_clear()


PUBLIC = {
    "raft-things.pth": ROOT / "tests/golden/raft_large/keys.json",
    "gma-sintel.pth": ROOT / "tests/golden/gma/keys.json",
}
"""Published checkpoints that pages take as given, and the lists of their tensors; here their numbers are random."""


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The folder that every page starts from: pictures, a clip, procedural Sintel, checkpoints with random numbers."""
    import torch

    from ffplug.datasets import read_image
    from ffplug.datasets.procedural import Recipe, write_procedural
    from ffplug.visualization import write_video

    folder = tmp_path_factory.mktemp("world")
    write_procedural(Recipe("sintel", 3, 3, (96, 128), 0, "standard", "analytic"), folder / "data/Sintel")
    sequence = next((folder / "data/Sintel/training/clean").iterdir())
    shutil.copytree(sequence, folder / "frames")
    pictures = sorted((folder / "frames").iterdir())
    for name, picture in zip(("a.png", "b.png"), pictures, strict=False):
        shutil.copy(picture, folder / name)
    for index in (1, 2):
        shutil.copytree(sequence, folder / f"clips/{index}")
    write_video([read_image(picture) for picture in pictures], folder / "clip.mp4")
    for name, keys in PUBLIC.items():
        torch.save({f"module.{key}": tensor for key, tensor in filled(keys).items()}, folder / name)
    return folder


@pytest.mark.parametrize("page", [page for page in (str(path.relative_to(ROOT)) for path in RUN) if steps(page)])
def test_the_blocks_of_a_page_run(page, world, tmp_path):
    folder = tmp_path / "page"
    shutil.copytree(world, folder, copy_function=os.link)
    for name in ("configs", "tools"):
        (folder / name).symlink_to(ROOT / name)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FFPLUG_")}
    python = Path(warm.python())  # `ffplug` lies beside it
    environment["PATH"] = os.pathsep.join([str(python.parent), str(Path(sys.executable).parent), environment["PATH"]])
    done = subprocess.run(
        [python, ROOT / "tests/docs_page.py"],
        input=json.dumps([dataclasses.asdict(block) for block in steps(page)]),
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_blocks_are_of_a_known_language_and_left_out_for_a_listed_reason():
    for block in ALL:
        assert block.language in LANGUAGES, f"{block.where}: {block.language!r} is none of {sorted(LANGUAGES)}"
        assert block.reason is None or block.reason in REASONS, f"{block.where}: {block.reason!r} is no reason here"
    for path in PAGES:
        comments = len(re.findall(r"<!-- not run:", path.read_text()))
        used = sum(block.reason is not None for block in BLOCKS[str(path.relative_to(ROOT))])
        assert comments == used, f"{path}: a 'not run' comment stands before no block"


@pytest.mark.parametrize("block", ALL, ids=lambda block: f"{block.page}:{block.line}")
def test_a_block_can_be_read(block):
    if block.language == "python":
        compile(block.text, block.where, "exec")
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "yaml":
        yaml.safe_load(block.text)
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "bash":
        subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
        for command in commands(block.text):
            check_command(command, block)


def commands(text: str) -> Iterator[list[str]]:
    """The words of every simple command of a script, without the variables set before it."""
    text = text.replace("\\\n", " ")
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();<>|&"):
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)
                if words:
                    yield words
                words = ["> to a file"] if ">" in word or "<" in word else []
            else:
                words.append(word)


def check_command(words: list[str], block: Block) -> None:
    program, *arguments = words
    if program == "ffplug":
        check_ffplug(arguments, block)
    elif program.startswith("python") and arguments and arguments[0].endswith(".py"):
        script = Path(arguments[0])
        assert (ROOT / script).is_file() or is_written(arguments[0], block), f"{block.where}: no file {script}"
        if script.parts[0] == "tools":
            check_ffplug([script.stem, *arguments[1:]], block)
    elif program.startswith("tools/"):
        assert (ROOT / program).is_file(), f"{block.where}: no file {program}"
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        for target in arguments:
            assert "=" in target or target in targets, f"{block.where}: the Makefile has no target {target!r}"


def check_ffplug(arguments: list[str], block: Block, whole: bool = True) -> None:
    """Let the parser of ``ffplug`` read a command line, then look up the names that stand in it.

    Args:
        arguments: what stands after ``ffplug``.
        block: where it stands.
        whole: False where arguments may be missing, as in a sentence.
    """
    arguments = spread_options([argument for argument in arguments if argument != "--debug"])
    where = f"{block.where}: ffplug {' '.join(arguments)}"
    command, context = cli, click.Context(cli, info_name="ffplug")
    try:
        while isinstance(command, click.Group):
            if not arguments or arguments[0].startswith("-"):
                command.make_context("ffplug", list(arguments) or ["--help"])
            name, command, arguments = command.resolve_command(context, arguments)
            context = click.Context(command, info_name=name, parent=context)
        values = command.make_context(context.info_name, list(arguments)).params
    except click.exceptions.Exit:
        return  # --help, --version
    except click.MissingParameter as error:
        assert not whole, f"{where}: {error.format_message()}"
        return
    except click.ClickException as error:
        if isinstance(error, click.BadParameter) and any(is_made(word, block) for word in arguments):
            return
        pytest.fail(f"{where}: {error.format_message()}")
    check_names(context.command_path, values, where, block)


def page_of(block: Block) -> list[Block]:
    return BLOCKS.get(block.page, [block])


def is_written(path: str, block: Block) -> bool:
    """Whether a block of the page is a file of that name, or another command of the page names it, and so makes it."""
    scripts = "".join(other.text for other in page_of(block) if other.language == "bash")
    return any(other.title == path for other in page_of(block)) or scripts.count(path) > 1


def is_known(name: str, block: Block) -> bool:
    """Whether there is a model or recipe of that name: a plugin's, or one that the page itself defines or makes."""
    names = set(config_names())
    for other in page_of(block):
        if other.language == "toml":
            tables = tomllib.loads(other.text)
            names |= {*tables.get("models", {}), *tables.get("configs", {})}
    return name.replace("-", "_") in names or is_made(name, block)


def is_made(name: str, block: Block) -> bool:
    """Whether a name is that of a plugin that the page makes by ``ffplug new``, or begins with it."""
    made = [new for other in page_of(block) for new in re.findall(r"^ffplug new (\w+)", other.text, re.M)]
    return any(re.fullmatch(rf"{new}([_-]\w+)?", name) for new in made)


def check_names(command: str, values: dict, where: str, block: Block) -> None:
    name = values.get("config") or values.get("model")
    if isinstance(name, str) and not name.isupper() and command != "ffplug migrate":
        if "/" in name or name.endswith(".py"):
            made = name.startswith("work_dirs/") or is_written(name, block)
            assert made or (ROOT / name).is_file(), f"{where}: no file {name}"
        else:
            built_in = command == "ffplug interpolate" and name in ("blend", "dis")
            assert built_in or is_known(name, block), f"{where}: no model or recipe {name!r}"
    source = values["converter"] if "converter" in values else values.get("source")
    if source and not source.isupper():
        converters = {converter for plugin in plugins() for converter in plugin.components.get("converters", ())}
        assert source in converters, f"{where}: no converter {source!r}"
    if command.startswith("ffplug weights"):
        released = {weights for plugin in plugins() for weights in plugin.weights}
        missing = {name for name in values.get("names", ()) if not name.isupper()} - released
        assert not missing, f"{where}: no manifest knows the weights {sorted(missing)}"
    if values.get("cfg_options") and isinstance(name, str):
        check_settings(name, values["cfg_options"], where)


def check_settings(name: str, options: tuple[str, ...], where: str) -> None:
    """Check a config with its ``--cfg-options`` as a run would; a page's own config is checked by running the page."""
    from ffplug.config import load_config, parse_cfg_options, validate_config

    file = ROOT / name
    if file.is_file() or name.replace("-", "_") in config_names():
        try:
            validate_config(load_config(file if file.is_file() else name, parse_cfg_options(options)))
        except FFPlugError as error:
            pytest.fail(f"{where}: {error}")


def inline_code(path: Path) -> Iterator[Block]:
    for token in MarkdownIt("commonmark").enable("table").parse(path.read_text()):
        for child in token.children or ():
            if child.type == "code_inline":
                page = str(path.relative_to(ROOT))
                yield Block(page, token.map[0] + 1 if token.map else 0, "inline", None, child.content, None)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_names_in_sentences_are_there(path):
    for code in inline_code(path):
        if code.text.startswith("ffplug ") and "..." not in code.text:
            check_ffplug(shlex.split(code.text)[1:], code, whole=False)
        elif re.fullmatch(r"ffplug(_\w+)?(\.\w+)+(?<!\.toml)", code.text):
            assert exists(code.text), f"{code.where}: there is no {code.text}"


def exists(name: str) -> bool:
    """Whether a dotted name is a registered type, a module, or something in one; or of a package that is not here."""
    package, _, rest = name.partition(".")
    if importlib.util.find_spec(package) is None:
        return True
    if any(rest in kind for plugin in plugins() if plugin.package == package for kind in plugin.components.values()):
        return True
    module, *attributes = package, *rest.split(".")
    value = importlib.import_module(module)
    for attribute in attributes:
        try:
            value = getattr(value, attribute)
        except AttributeError:
            module = f"{value.__name__}.{attribute}"
            if importlib.util.find_spec(module) is None:
                return False
            value = importlib.import_module(module)
    return True


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("ffplug trian raft_large_chairs", "no command 'trian'"),
        ("ffplug train raft_large_chairs --work-dri here", "No such option"),
        ("ffplug train --amp", "Missing argument"),
        ("ffplug train raft_huge_chairs", "no model or recipe 'raft_huge_chairs'"),
        ("OMP_NUM_THREADS=1 ffplug info ffplug && ffplug train configs/nothing.py", "no file configs/nothing.py"),
        ("ffplug train raft_large_chairs --cfg-options model.cost.radios=3", "model.cost.radios"),
        ("ffplug convert a.pth b.safetensors --from rfat", "no converter 'rfat'"),
        ("ffplug weights pull mobile_sma", "mobile_sma"),
        ("python tools/trian.py CONFIG", "no file tools/trian.py"),
        ("make dmeo", "no target 'dmeo'"),
    ],
)
def test_a_wrong_command_is_found(script, message):
    block = Block("a page", 1, "bash", None, script, None)
    with pytest.raises((AssertionError, pytest.fail.Exception), match=re.escape(message)):
        for command in commands(script):
            check_command(command, block)


def test_a_failing_block_is_named():
    failing = [("python", "x = 1"), ("python", "assert x == 2"), ("bash", "false"), ("bash", "true")]
    blocks = [
        {"page": "a.md", "line": line, "language": language, "title": None, "text": text}
        for line, (language, text) in enumerate(failing)
    ]
    for chosen, message in (((0, 1), "a.md, line 1: this block fails"), ((3, 2), "a.md, line 2: this block ends")):
        done = subprocess.run(
            [sys.executable, "-c", f"import docs_page; docs_page.run({[blocks[index] for index in chosen]!r}, {{}})"],
            capture_output=True,
            text=True,
            cwd=ROOT / "tests",
            check=False,
        )
        assert done.returncode == 1 and message in done.stderr


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as the site and GitHub make them."""
    tokens = MarkdownIt("commonmark").parse(path.read_text())
    titles = [
        "".join(child.content for child in inline.children)
        for opening, inline in pairwise(tokens)
        if opening.type == "heading_open"
    ]
    return {slug(title) for title in titles}


def slug(title: str) -> str:
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def links(path: Path) -> Iterator[str]:
    for token in MarkdownIt("commonmark").enable("table").parse(path.read_text()):
        for child in token.children or ():
            target = child.attrs.get("href") or child.attrs.get("src")
            if target:
                yield str(target)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for link in links(path):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            assert parts.scheme in ("https", "http") and "." in parts.netloc, f"{path}: {link} is no address"
            continue
        target = (path.parent / parts.path).resolve() if parts.path else path
        assert target.exists(), f"{path}: {link} leads nowhere"
        if path in DOCS:
            assert target.is_relative_to(ROOT / "docs"), f"{path}: {link} leads out of the site"
        if parts.fragment:
            assert parts.fragment in anchors(target), f"{path}: {target.name} has no heading #{parts.fragment}"


def site() -> dict:
    """The site's configuration, with what its own hook adds."""
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "_site" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    hooks.on_config(config)
    return config


def nav_pages(entry: object) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    for child in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
        yield from nav_pages(child)


def test_the_navigation_holds_every_page():
    assert sorted(nav_pages(site()["nav"])) == sorted(str(path.relative_to(ROOT / "docs")) for path in DOCS)


REFERENCE = (
    "structures",
    "datasets",
    "models",
    "ops",
    "evaluation",
    "visualization",
    "apis",
    "engine",
    "bulk",
    "testing",
)


def test_the_reference_holds_every_public_name():
    pages = "".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)$", pages, re.M))
    assert {"ffplug", "ffplug.config", "ffplug.plugin", "ffplug.errors"} <= shown
    for name in REFERENCE:
        module = importlib.import_module(f"ffplug.{name}")
        parts = {
            module.__name__,
            *(f"{module.__name__}.{found.name}" for found in pkgutil.iter_modules(module.__path__)),
        }
        assert parts & shown, f"docs/api shows neither {module.__name__} nor a module of it"
        for public in getattr(module, "__all__", ()):
            value = getattr(module, public)
            sources = {module.__name__, getattr(value, "__module__", "")}
            assert sources & shown, f"docs/api does not show ffplug.{name}, and so not its {public}"
            described = inspect.getdoc(value) or not (inspect.isroutine(value) or inspect.isclass(value))
            assert described, f"ffplug.{name}.{public} has no docstring"
