"""The ``ffplug`` command. Subcommands load when they are called, so that ``ffplug --help`` is quick."""

from __future__ import annotations

import importlib
import os
import re
import sys
import time
import traceback
from collections.abc import Mapping, Sequence

import click

from ffplug.errors import FFPlugError, PluginError, did_you_mean
from ffplug.version import __version__

COMMANDS = {
    "list": "Show the installed plugins, what each registers, and what is wrong with it.",
    "info": "Show everything about one plugin.",
    "check": "Check plugins as their own tests do, and print a table.",
    "new": "Make a plugin to start from.",
    "config": "Print a resolved config, and which file each value comes from.",
    "doctor": "Report versions, plugins, op backends and devices, for a bug report.",
    "data": "Check a data set on disk.",
    "synth": "Write procedural data with exact flow in the layout of a data set.",
    "train": "Train a model.",
    "test": "Test a model.",
    "infer": "Estimate the flow of pictures, folders or videos.",
    "submit": "Write and check the archive of a benchmark submission.",
    "convert": "Convert a published checkpoint.",
    "export": "Write a model as ONNX, with a description of its inputs.",
    "weights": "List, pull, verify and mirror released weights.",
    "migrate": "Translate a config of another system.",
    "flops": "Count parameters and FLOPs of a model.",
    "benchmark": "Measure time and memory of a model.",
    "report": "Write the HTML report of a training or test run.",
}
"""Subcommands and what they do; each lives in the module of its name."""

LOST_ANOTHER = re.compile(
    r"Connection (was likely )?(reset|closed)|Broken pipe|Socket Timeout|remote process exited|ncclRemoteError"
)
"""What gloo, NCCL and torch's store say in a process when another one has ended."""

PATIENCE_S = 5
"""How long such a process waits to be ended by its launcher."""


def plugin_commands() -> dict[str, Mapping[str, str]]:
    """Commands of the installed plugins by name, each with its ``module`` and ``help``; only manifests are read.

    A name of the core's stays the core's, and the first plugin's by name otherwise.
    """
    from ffplug.plugin import plugins

    found: dict[str, Mapping[str, str]] = {}
    for plugin in plugins():
        for name, command in plugin.commands.items():
            if name not in COMMANDS:
                found.setdefault(name, command)
    return found


class LazyGroup(click.Group):
    """A group that knows its commands' names and imports a command's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: D102
        return [*COMMANDS, *plugin_commands()]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: D102
        if name in COMMANDS:  # each has the name of its module in this package
            return importlib.import_module(f"ffplug.cli.{name}").command
        command = plugin_commands().get(name)
        if command is None:
            return None
        try:
            return importlib.import_module(command["module"]).command
        except (ImportError, AttributeError) as error:
            raise PluginError(f"the command {name!r} is {command['module']}, which can't be used: {error}") from error

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple:  # noqa: D102
        if args and args[0] not in COMMANDS and args[0] not in (known := self.list_commands(ctx)):
            raise click.UsageError(f"no command {args[0]!r}{did_you_mean(args[0], known)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: D102
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])
        if more := plugin_commands():
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(name, command["help"]) for name, command in more.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ffplug")
def cli() -> None:
    """Optical flow, frame interpolation, space-time supersampling and faces, as plugins on MMEngine.

    Every command takes --help, and --debug for the traceback of an error.
    """


def run(command: click.Command, arguments: Sequence[str], name: str) -> int:
    """Run a click command; an error becomes one line on standard error.

    Returns:
        Exit status: 0, 1 for an error that we did not expect, 2 for wrong input, 130 when interrupted.
    """
    debug = "--debug" in arguments
    arguments = spread_options([argument for argument in arguments if argument != "--debug"])
    try:
        status = command.main(args=arguments, prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return 130
    except Exception as error:
        several = "RANK" in os.environ
        if several:
            _tell_launcher(error)
        if debug or (several and not isinstance(error, FFPlugError)):
            traceback.print_exc()
        click.echo(_line(error), err=True)
        return 2 if isinstance(error, FFPlugError) else 1
    return status if isinstance(status, int) else 0


def spread_options(arguments: Sequence[str], option: str = "--cfg-options") -> list[str]:
    """Let several values follow one ``--cfg-options``, as MMEngine's users write it: a=1 b=2."""
    spread, following = [], False
    for argument in arguments:
        key = argument.partition("=")[0]
        if following and spread[-1] != option and "=" in argument and key.replace(".", "").replace("_", "").isalnum():
            spread.append(option)
        elif argument.startswith("-"):
            following = argument == option
        spread.append(argument)
    return spread


def _tell_launcher(error: Exception) -> None:
    """Record the error where torchrun looks for what ended a run: with its traceback, under the rank that met it first.

    A process that merely noticed the end of another one waits, for the launcher then ends it and blames the other.
    """
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    if LOST_ANOTHER.search(str(error)):
        time.sleep(PATIENCE_S)
    get_error_handler().record_exception(error)


def _line(error: Exception) -> str:
    rank = os.environ.get("RANK")  # set where several processes work together
    where = f"rank {rank} of {os.environ.get('WORLD_SIZE')}: " if rank else ""
    if rank and LOST_ANOTHER.search(str(error)):
        where += "another process ended before, and its own message says why: "
    if isinstance(error, FFPlugError):
        text = str(error).strip()
        if text.startswith("Caught "):
            # From a data-loading worker: torch puts the worker's traceback before the error.
            text = text.splitlines()[-1].partition(": ")[2]
        return f"error: {where}{text}"
    text = " ".join(str(error).split())
    return f"error: {where}{type(error).__name__}: {text} (run again with --debug for the traceback)"


def main() -> None:
    """Entry point of the ``ffplug`` command."""
    sys.exit(run(cli, sys.argv[1:], "ffplug"))
