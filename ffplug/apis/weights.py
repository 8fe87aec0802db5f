"""Released weights: what the manifests know of them, which are on this machine, and getting those that are asked for.

Only :func:`pull` and :func:`mirror` ever open a connection. A file appears under its name when it is whole and has the
size and SHA-256 of its manifest; until then it lies beside it as ``.NAME.part``, where the next try goes on.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from ffplug.errors import CheckpointError, ConfigError, did_you_mean
from ffplug.plugin import plugins
from ffplug.version import __version__

FOLDER_VARIABLE = "FFPLUG_WEIGHTS"
MIRROR_VARIABLE = "FFPLUG_MIRROR"
INDEX = "index.json"
"""What a mirror says of its files: name of the weights -> file, size, sha256, licence, origin."""

CHUNK = 1 << 20
TIMEOUT = 30.0
STRIKES = 3
"""Connections in a row that may break without having brought anything new."""

Progress = Callable[[int, int | None], None]
"""Is told the bytes that are there, and how many there will be, where that is known."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """Released weights as a manifest describes them.

    Attributes:
        name: that users give; the key of the manifest's table.
        plugin: distribution whose manifest it is.
        file: name in the folder of weights.
        origin: whose they are and where they come from.
        licence: of the weights.
        urls: where to get them, tried in order; none for weights that are got by hand.
        size: bytes, where it is known.
        sha256: hexadecimal, whole or its first digits, or None.
        models: model names that take them; the first weights of a model are its default.
        source: converter of their keys, or None where none is needed or any may be tried.
    """

    name: str
    plugin: str
    file: str
    origin: str
    licence: str
    urls: tuple[str, ...] = ()
    size: int | None = None
    sha256: str | None = None
    models: tuple[str, ...] = ()
    source: str | None = None

    @property
    def path(self) -> Path:
        """Where they lie on this machine, or would."""
        return weights_folder() / self.file

    def problem(self, path: Path) -> str | None:
        """What is wrong with the file at ``path`` (which is there), or None."""
        size = path.stat().st_size
        if size == 0:
            return "is empty"
        if self.size is not None and size != self.size:
            return f"has {size:,} bytes, expected {self.size:,}"
        if self.sha256 is not None:
            found = sha256(path)
            if not found.startswith(self.sha256.lower()):
                return f"has SHA-256 {found[: len(self.sha256)]}, expected {self.sha256}"
        return None


def weights_folder() -> Path:
    """The folder of weights: FFPLUG_WEIGHTS, or ``weights`` in the current folder."""
    return Path(os.environ.get(FOLDER_VARIABLE) or "weights").expanduser()


def known_weights() -> dict[str, Weights]:
    """All weights of the usable plugins' manifests by name, the core's first.

    Where two plugins use one name, the later one's weights go by ``package.name``.
    """
    known: dict[str, Weights] = {}
    for plugin in plugins():
        for key, table in plugin.weights.items():
            name = key if key not in known else f"{plugin.package}.{key}"
            values = {field: tuple(value) if isinstance(value, list) else value for field, value in table.items()}
            known[name] = Weights(name=name, plugin=plugin.name, **values)
    return known


def find_weights(name: str) -> Weights:
    """The weights of this name (``-`` and ``_`` alike).

    Raises:
        ConfigError: there are none; the message lists near names.
    """
    known = known_weights()
    wanted = name.replace("-", "_")
    if wanted not in known:
        raise ConfigError(f"no weights {name!r}{did_you_mean(wanted, known)}; `ffplug weights list` shows all")
    return known[wanted]


def locate(name_or_path: str | os.PathLike) -> tuple[Path, Weights | None]:
    """Where weights are or would be, by path or by the name of released ones; a file of that name goes first."""
    path = Path(name_or_path).expanduser()
    weights = None if path.is_file() else known_weights().get(str(name_or_path).replace("-", "_"))
    return (weights.path if weights else path), weights


def find_file(name_or_path: str | os.PathLike) -> tuple[Path, str | None]:
    """A file of weights: by its path, or by the name of released weights, which are then checked.

    Returns:
        The path, and the converter that the keys of released weights need. A path that is no name is given back
        whether or not there is a file.

    Raises:
        CheckpointError: the released weights are not on this machine, or the file is not theirs.
    """
    path, weights = locate(name_or_path)
    if weights is None:
        return path, None
    if not path.is_file():
        raise CheckpointError(f"{path} is not on this machine: run `ffplug weights pull {weights.name}`")
    if problem := weights.problem(path):
        raise CheckpointError(f"{path} {problem}: run `ffplug weights pull {weights.name} --force`")
    return path, weights.source


def find_pretrained(model: str, pretrained: bool | str | os.PathLike) -> tuple[Path, str | None]:
    """The file of weights for a model, and the converter that its keys need.

    Args:
        model: name of a model.
        pretrained: True for the model's default weights, a name of weights, or the path of a file.

    Raises:
        ConfigError: no such weights are known, or they are another model's.
        CheckpointError: they are not on this machine, or the file is not theirs.
    """
    known = known_weights()
    fitting = [weights.name for weights in known.values() if model in weights.models]
    if pretrained is True:
        if not fitting:
            raise ConfigError(f"no published weights are known for {model}: give the path of a file of them")
        return find_file(fitting[0])
    if Path(pretrained).expanduser().is_file():
        return find_file(pretrained)
    name = str(pretrained).replace("-", "_")
    if name in fitting:
        return find_file(name)
    there = f"; for {model} there are: {', '.join(fitting)}" if fitting else ""
    if name in known:
        theirs = ", ".join(known[name].models) or "a part of a network"
        raise ConfigError(f"weights {name} are of {theirs}, not of {model}{there}")
    near = did_you_mean(name, known) or there
    raise CheckpointError(f"{pretrained} is neither a file nor a name of weights{near}")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def pull(
    weights: Weights, folder: str | os.PathLike | None = None, force: bool = False, progress: Progress | None = None
) -> Path:
    """Get weights into a folder: from the mirror if there is one, else from the manifest's URLs in order.

    A connection that breaks is taken up where it broke, by this call or a later one.

    Args:
        weights: which.
        folder: where to; the folder of weights if None.
        force: fetch them even if a file is there, and replace it.
        progress: is told how far it is.

    Returns:
        The file.

    Raises:
        CheckpointError: no source gave the right file (which says why for each), a wrong file is there already, they
            are got by hand, or the disk refuses.
    """
    return _pull(weights, Path(folder or weights_folder()).expanduser(), _sources(weights), force, progress)


def _pull(weights: Weights, folder: Path, sources: Iterable[tuple[str, Weights]], force: bool, progress: Any) -> Path:
    target, part = folder / weights.file, folder / f".{weights.file}.part"
    failures = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{weights.file}.lock"):
            if target.exists() and not force:
                if problem := weights.problem(target):
                    raise CheckpointError(f"{target} is there already and {problem}: --force replaces it")
                return target
            for url, expected in sources:
                try:
                    _download(url, part, expected, progress or (lambda done, total: None))
                    _publish(part, target)
                    _note(part).unlink(missing_ok=True)
                    return target
                except _SourceError as error:
                    failures.append(f"{url}: {error}")
    except OSError as error:
        raise CheckpointError(f"weights {weights.name} can't be written to {folder}: {error}") from error
    if not weights.urls:
        tried = f" (tried {'; '.join(failures)})" if failures else ""
        raise CheckpointError(
            f"weights {weights.name} have no public address that can be checked: get them from {weights.origin} and "
            f"put the file at {target}{tried}"
        )
    raise CheckpointError(f"weights {weights.name} could not be got: {'; '.join(failures)}")


def mirror(
    weights: Iterable[Weights], folder: str | os.PathLike, progress: Callable[[Weights], Progress] | None = None
) -> dict[str, str]:
    """Bring weights into a folder that FFPLUG_MIRROR may name, or that any server of files may serve.

    What is on this machine is copied, the rest pulled; a wrong file in the folder is replaced. Beside the files lies
    ``index.json`` with each one's size and whole SHA-256, by which those who pull from the mirror check weights that
    the manifests have no sum of.

    Args:
        weights: which.
        folder: it is made; what it holds of another time stays.
        progress: is asked for each weights' :data:`Progress`.

    Returns:
        Why, for each weights that could not be mirrored.
    """
    folder = Path(folder).expanduser()
    failures, entries = {}, _read_json(folder / INDEX)
    for item in weights:
        here, there = item.path.resolve(), folder / item.file
        local = [(here.as_uri(), item)] if here.is_file() else []
        wrong = there.is_file() and item.problem(there) is not None
        try:
            path = _pull(item, folder, [*local, *_sources(item)], wrong, progress and progress(item))
        except CheckpointError as error:
            failures[item.name] = str(error)
            continue
        entries[item.name] = {
            "file": item.file,
            "size": path.stat().st_size,
            "sha256": sha256(path),
            "licence": item.licence,
            "origin": item.origin,
        }
    if entries:
        temporary = folder / f".{INDEX}.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        _publish(temporary, folder / INDEX)
    return failures


def _publish(temporary: Path, target: Path) -> None:
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, target)


# ---------------------------------------------------------------------------------------------------------------
# Sources


class _SourceError(Exception):
    """One source does not give the right file; the next may."""


class _BrokenError(Exception):
    """The connection broke in the middle."""


class _StaleError(Exception):
    """The server's file is not the one that a part was begun with."""


def _sources(weights: Weights) -> Iterator[tuple[str, Weights]]:
    """Addresses in the order in which they are tried, and what each file there must be."""
    base = os.environ.get(MIRROR_VARIABLE, "").strip()
    if base:
        if "://" not in base:
            base = Path(base).expanduser().resolve().as_uri()
        base = base.rstrip("/")
        yield f"{base}/{urllib.parse.quote(weights.file)}", _as_in_index(weights, f"{base}/{INDEX}")
    for url in weights.urls:
        yield url, weights


def _as_in_index(weights: Weights, url: str) -> Weights:
    """Fill in the size and sum that the manifest lacks from the mirror's index, if it has one."""
    if weights.size is not None and len(weights.sha256 or "") == 64:
        return weights
    try:
        with _open(url, {}) as response:
            entry = json.loads(response.read(CHUNK))[weights.name]
        size, digest = int(entry["size"]), str(entry["sha256"]).lower()
    except (_SourceError, _BrokenError, OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return weights
    whole = digest if digest.startswith((weights.sha256 or "").lower()) else weights.sha256
    return dataclasses.replace(weights, size=weights.size or size, sha256=whole)


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    """Opens http and https alone, so that no redirection leads to another scheme."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    opener.addheaders = [("User-Agent", f"ffplug/{__version__}")]
    return opener


@contextmanager
def _open(url: str, headers: Mapping[str, str]) -> Iterator[Any]:
    """Open an address: http and https by request, file by opening it."""
    try:
        parsed = urllib.parse.urlsplit(url)
        if parsed.scheme == "file":
            response: Any = open(urllib.request.url2pathname(parsed.path), "rb")  # noqa: SIM115 (closed below)
        elif parsed.scheme in ("http", "https"):
            response = _opener().open(urllib.request.Request(url, headers=dict(headers)), timeout=TIMEOUT)
        else:
            raise _SourceError(f"only http, https and file addresses are opened, not {parsed.scheme or 'this'}")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and "Range" in headers:
            raise _StaleError from error
        raise _SourceError(f"the server says {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise (_BrokenError if "Range" in headers else _SourceError)(reason) from error
    with response:
        yield response


def _download(url: str, part: Path, expected: Weights, progress: Progress) -> None:
    """Bring ``part`` to the whole, right file.

    Raises:
        _SourceError: this source does not give it.
    """
    strikes, most = 0, _size(part)
    while True:
        try:
            resumed = _transfer(url, part, expected, progress)
        except _BrokenError as error:
            strikes = 0 if _size(part) > most else strikes + 1
            most = max(most, _size(part))
            if strikes == STRIKES:
                raise _SourceError(f"{error}, {most:,} bytes are kept for the next try") from error
            time.sleep(0.1 * 4**strikes)
            continue
        except _StaleError:
            _discard(part)
            continue
        problem = expected.problem(part)
        if problem is None:
            return
        _discard(part)
        if not resumed:
            raise _SourceError(f"the file {problem}")


def _transfer(url: str, part: Path, expected: Weights, progress: Progress) -> bool:
    """Make one request, for what ``part`` lacks if the server still has the same file, else for all.

    Returns:
        Whether bytes of an earlier request were kept.

    Raises:
        _SourceError: the source does not have the file.
        _BrokenError: the connection broke; what came is kept.
        _StaleError: the server has another file by now than ``part`` is of.
    """
    note = _read_json(_note(part))
    start = _size(part) if note.get("url") == url and (note.get("validator") or note.get("total")) else 0
    if start and start == note.get("total"):
        return True
    headers = {"Range": f"bytes={start}-"} if start else {}
    if start and note.get("validator"):
        headers["If-Range"] = note["validator"]
    with _open(url, headers) as response:
        note, start = _describe(response, url, start, note)
        total = note["total"]
        if expected.size is not None and total is not None and total != expected.size:
            raise _SourceError(f"the file has {total:,} bytes, expected {expected.size:,}")
        if start == 0:
            _note(part).unlink(missing_ok=True)
            part.write_bytes(b"")
            _note(part).write_text(json.dumps(note), encoding="utf-8")
        limit = total if total is not None else expected.size
        with open(part, "ab") as file:
            _copy(response, file, limit, progress)
            if total is not None and file.tell() < total:
                raise _BrokenError("the connection broke")
    return start > 0


def _describe(response: Any, url: str, start: int, note: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """What is to be noted of a file, and the offset at which the response begins."""
    if not isinstance(response, http.client.HTTPResponse):
        return {"url": url, "validator": None, "total": os.fstat(response.fileno()).st_size}, 0
    tag, modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
    validator = tag if tag and not tag.startswith("W/") else modified
    if response.status == 200:
        length = response.headers.get("Content-Length", "")
        return {"url": url, "validator": validator, "total": int(length) if length.isdigit() else None}, 0
    if response.status == 206 and start:
        place, _, whole = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        total = int(whole) if whole.isdigit() else note.get("total")
        if place.startswith(f"{start}-") and total == note.get("total") and validator == note.get("validator"):
            return dict(note), start
        raise _StaleError
    raise _SourceError(f"the server answers {response.status} to a request for a file")


def _copy(response: Any, file: BinaryIO, limit: int | None, progress: Progress) -> None:
    while True:
        progress(file.tell(), limit)
        try:
            chunk = response.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenError("the connection broke") from error
        if not chunk:
            return
        if limit is not None and file.tell() + len(chunk) > limit:
            raise _SourceError(f"the file has more than the {limit:,} bytes expected")
        file.write(chunk)


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _note(part: Path) -> Path:
    """The file beside a part that says what it is a part of."""
    return part.with_suffix(".json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
