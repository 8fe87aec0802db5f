"""A Python that has imported torch already, for the many processes that the tests start.

While :func:`server` lasts, the program that :func:`python` names takes the arguments of ``python`` and does the same,
but in a fork of the server: a process of its own, with the caller's folder, variables and standard streams, that need
not import the packages of ``PRELOADED`` again. Nothing of FFPlug is among them, so that each process imports what it
uses itself. Tests that look at the start of a process, kill one, or set what the interpreter reads first
(``PYTHONHASHSEED``) start ``sys.executable``.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

VARIABLE = "WARM_PYTHON"
PRELOADED = (
    "torch._dynamo",
    "torch.distributed.run",
    "torch.utils.tensorboard",
    "mmengine.runner",
    "mmengine.visualization",
    "matplotlib.pyplot",
    "cv2",
    "h5py",
    "av",
    "PIL.Image",
    "rich.console",
    "safetensors.torch",
)


def python(environment: Mapping[str, str] = os.environ) -> str:
    """The program to start in place of ``sys.executable``; that itself where no server was started."""
    return environment.get(VARIABLE, sys.executable)


@contextmanager
def server() -> Iterator[None]:
    """Have a server for this process and those below it, unless there is one already.

    Its folder holds the programs ``python`` and ``ffplug``.
    """
    if VARIABLE in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path, program = Path(folder, "socket"), Path(folder, "python")
        client = shlex.join([sys.executable, "-I", "-S", __file__, str(path)])
        program.write_text(f'#!/bin/sh\nexec {client} "$@"\n')
        Path(folder, "ffplug").write_text(f'#!/bin/sh\nexec {client} -m ffplug.cli "$@"\n')
        for file in (program, Path(folder, "ffplug")):
            file.chmod(0o755)
        listener.bind(str(path))
        listener.listen(64)
        command = [sys.executable, __file__, "serve", str(listener.fileno())]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()])
        os.environ[VARIABLE] = str(program)
        try:
            yield
        finally:
            del os.environ[VARIABLE]
            process.communicate()


def receive(connection: socket.socket, streams: bool) -> tuple[dict, list[int]]:
    """A message, one line of JSON, and the streams that come with it."""
    text, files = b"", []
    while not text.endswith(b"\n"):
        if streams and not files:
            part, files, _, _ = socket.recv_fds(connection, 1 << 16, 3)
        else:
            part = connection.recv(1 << 16)
        if not part:
            raise ConnectionError
        text += part
    return json.loads(text), files


def ask(path: str, arguments: list[str]) -> NoReturn:
    """Let the server run a command with this process's streams, and end as it does."""
    request = {"arguments": arguments, "folder": os.getcwd(), "variables": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        message = json.dumps(request).encode() + b"\n"
        sent = socket.send_fds(connection, [message], [0, 1, 2])
        connection.sendall(message[sent:])
        status = receive(connection, False)[0]
    if status < 0:
        os.kill(os.getpid(), -status)
    os._exit(status)


def serve(listener: socket.socket) -> list[str]:
    """Answer requests until standard input ends; in a fork, return the arguments that it is to run.

    Raises:
        SystemExit: in the server, at the end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that answer
    with listener:
        while True:
            ready, _, _ = select.select([listener, 0], [], [])
            if 0 in ready:
                sys.exit(0)
            connection, _ = listener.accept()
            if not gc.get_freeze_count():  # the first request pays
                for name in PRELOADED:
                    importlib.import_module(name)
                gc.freeze()  # a collection in a fork would write to, and so copy, all of this
            if os.fork() == 0:
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, streams = receive(connection, True)
    process = os.fork()
    if process:
        answer(connection, streams, process)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["variables"])
    return request["arguments"]


def answer(connection: socket.socket, streams: list[int], process: int) -> NoReturn:
    """Send the status of a process when it has ended; kill it if the one who asked ends first."""
    for stream in streams:
        os.close(stream)
    ended = threading.Event()

    def watch() -> None:
        connection.recv(1)
        if not ended.is_set():
            os.kill(process, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    _, status = os.waitpid(process, 0)
    ended.set()
    with suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def run(arguments: list[str]) -> NoReturn:
    """Do what ``python`` does with these arguments, and end as it does, but for taking the modules apart."""
    if arguments[0] == "-u":
        sys.stdout.reconfigure(write_through=True)
        arguments = arguments[1:]
    what, *rest = arguments
    first = os.getcwd() if what in ("-m", "-c") else str(Path(what).resolve().parent)
    sys.path[:1] = [first, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    status: object = 0
    try:
        if what == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif what == "-c":
            sys.argv = ["-c", *rest[1:]]
            sys.modules["__main__"] = types.ModuleType("__main__")
            exec(rest[0], vars(sys.modules["__main__"]))
        else:
            sys.argv = arguments
            runpy.run_path(what, run_name="__main__")
    except SystemExit as end:
        status = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    if isinstance(status, str):
        sys.stderr.write(f"{status}\n")
        status = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)


def main() -> None:
    """Be the server or one that asks; what the server can't do is left to an ordinary Python."""
    first, *arguments = sys.argv[1:]
    if first == "serve":
        asked = serve(socket.socket(fileno=int(arguments[0])))
        sys.modules["numpy"].random.seed()  # every fork begins with the server's numbers
        run(asked)
    options = [argument for argument in arguments if argument != "-u"][:1]
    if options and (options[0] in ("-m", "-c") or not options[0].startswith("-")):
        ask(first, arguments)
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    main()
