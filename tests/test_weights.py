"""Released weights: pulled when asked for and only then, checked, resumed, mirrored; loaded by name."""

import hashlib
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import warm

import ffplug
from ffplug.apis.weights import known_weights
from ffplug.errors import CheckpointError, ConfigError
from ffplug.plugin import component_owners, discover, list_models

CONTENT = bytes(range(256)) * 12_000  # 3 MB
OTHER = CONTENT[::-1]


def digest(content):
    return hashlib.sha256(content).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Files with ranges, and the ways in which servers fail; ``server.files[path]`` says what to do."""

    def do_GET(self):
        file = self.server.files.get(self.path, {})
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked, self.headers.get("If-Range")))
        if "redirect" in file:
            self.send_response(302)
            self.send_header("Location", file["redirect"])
            self.end_headers()
            return
        if "content" not in file:
            self.send_error(404)
            return
        content, tag = file["content"], file.get("etag")
        fresh = file.get("ignores_if_range") or self.headers.get("If-Range") in (None, tag)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and fresh and file.get("ranges", True) else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if tag:
            self.send_header("ETag", tag)
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        stop = file["breaks"].pop(0) if file.get("breaks") else len(body)
        self.wfile.write(body[:stop])
        self.server.sent += min(stop, len(body))
        if stop < len(body):
            self.wfile.flush()
            if file.get("stalls"):
                self.server.stalled.set()
                self.server.release.wait(30)
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.requests, server.sent = {}, [], 0
    server.stalled, server.release = threading.Event(), threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


class Place:
    """A folder with a plugin that releases weights, and the command line in it."""

    def __init__(self, root):
        self.root = root
        self.package = root / "plugins" / "ffplug_released"
        self.package.mkdir(parents=True)
        (self.package / "__init__.py").write_text("")
        self.environment = {
            **os.environ,
            "FFPLUG_PLUGINS": str(self.package),
            "FFPLUG_WEIGHTS": str(root / "weights"),
            "no_proxy": "*",
        }
        self.environment.pop("FFPLUG_MIRROR", None)
        self.release()

    def release(self, *tables, models=""):
        self.package.joinpath("ffplug.toml").write_text(
            '[plugin]\nname = "ffplug-released"\npackage = "ffplug_released"\napi = ">=1"\n'
            f"[models]\n{models}\n" + "\n".join(tables)
        )

    @staticmethod
    def table(name="toy", **changes):
        values = {"file": f"{name}.bin", "origin": "a test", "licence": "CC0", **changes}
        return "\n".join([f"[weights.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())])

    def start(self, *arguments, python=sys.executable, **environment):
        return subprocess.Popen(
            [python, "-m", "ffplug.cli", *arguments],
            cwd=self.root,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments, **environment):
        process = self.start(*arguments, python=warm.python(), **environment)
        process.out, process.err = process.communicate(timeout=60)
        return process

    @property
    def target(self):
        return self.root / "weights" / "toy.bin"

    def visible(self, folder="weights"):
        return sorted(path.name for path in (self.root / folder).glob("[!.]*"))


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def offer(server, place, content=CONTENT, **changes):
    """Serve ``content`` at /toy.bin and release it, with what ``changes`` says of the table."""
    server.files.setdefault("/toy.bin", {}).update(content=content)
    table = {"urls": [f"{server.url}/toy.bin"], "size": len(content), "sha256": digest(content), **changes}
    place.release(place.table(**{key: value for key, value in table.items() if value is not None}))


def test_pull_gets_the_file_once(server, place):
    offer(server, place)
    listed = place.run("weights", "list", "toy")
    assert "not here: ffplug weights pull toy" in listed.out and not server.requests
    pulled = place.run("weights", "pull", "toy")
    assert pulled.returncode == 0, pulled.err
    assert place.target.read_bytes() == CONTENT and place.visible() == ["toy.bin"]
    assert "licence CC0" in pulled.out
    assert place.run("weights", "pull", "toy").returncode == 0 and len(server.requests) == 1
    assert "[here]" in place.run("weights", "list", "toy").out
    assert "[here]" in place.run("info", "ffplug-released").out
    assert place.run("weights", "pull", "--force", "toy").returncode == 0 and len(server.requests) == 2


@pytest.mark.parametrize("etag", ['"1"', None])
def test_a_broken_connection_is_taken_up_where_it_broke(server, place, etag):
    server.files["/toy.bin"] = {"breaks": [1_000_000, 500_000], "etag": etag}
    offer(server, place)
    pulled = place.run("weights", "pull", "toy")
    assert pulled.returncode == 0, pulled.err
    assert place.target.read_bytes() == CONTENT
    assert server.requests == [
        ("/toy.bin", None, None),
        ("/toy.bin", "bytes=1000000-", etag),
        ("/toy.bin", "bytes=1500000-", etag),
    ]


def kill_in_the_middle(server, place):
    server.files["/toy.bin"].update(breaks=[2_000_000], stalls=True)
    process = place.start("weights", "pull", "toy")
    assert server.stalled.wait(30)
    part = place.root / "weights" / ".toy.bin.part"
    deadline = time.monotonic() + 30
    while not (part.is_file() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    server.release.set()
    assert part.stat().st_size > 0 and place.visible() == []


def test_a_killed_pull_goes_on_in_the_next(server, place):
    server.files["/toy.bin"] = {"etag": '"1"'}
    offer(server, place)
    kill_in_the_middle(server, place)
    assert place.run("weights", "pull", "toy").returncode == 0
    assert place.target.read_bytes() == CONTENT
    _, asked, validator = server.requests[-1]
    assert int(asked.removeprefix("bytes=")[:-1]) > 0 and validator == '"1"'


@pytest.mark.parametrize(
    ("before", "after", "requests"),
    [
        ({"etag": '"1"'}, {"etag": '"2"'}, 2),
        ({"etag": '"1"'}, {"etag": '"2"', "ignores_if_range": True}, 3),
        ({}, {}, 3),
        ({"etag": '"1"'}, {"etag": '"2"', "ranges": False}, 2),
    ],
    ids=["if-range", "other-etag", "same-size-no-etag", "no-ranges"],
)
def test_two_files_are_never_spliced(server, place, before, after, requests):
    server.files["/toy.bin"] = {**before}
    offer(server, place)
    kill_in_the_middle(server, place)
    server.files["/toy.bin"] = {**after}
    offer(server, place, OTHER)
    pulled = place.run("weights", "pull", "toy")
    assert pulled.returncode == 0, pulled.err
    assert place.target.read_bytes() == OTHER
    assert len(server.requests) == requests and server.requests[1][1].startswith("bytes=")


def test_a_shorter_file_than_the_part_starts_anew(server, place):
    server.files["/toy.bin"] = {"breaks": [len(CONTENT) - 10] + 9 * [0]}
    offer(server, place)
    broken = place.run("weights", "pull", "toy")
    assert broken.returncode == 2 and "are kept for the next try" in broken.err
    assert place.visible() == []
    server.files["/toy.bin"] = {}
    offer(server, place, CONTENT[:1000])
    pulled = place.run("weights", "pull", "toy")
    assert pulled.returncode == 0, pulled.err
    assert place.target.read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": digest(OTHER)}, f"has SHA-256 {digest(CONTENT)}, expected {digest(OTHER)}"),
        ({"sha256": digest(OTHER)[:8], "size": None}, f"has SHA-256 {digest(CONTENT)[:8]}, expected"),
        ({"size": 77}, "the file has 3,072,000 bytes, expected 77"),
    ],
)
def test_a_wrong_file_never_gets_the_name(server, place, changes, message):
    offer(server, place, **changes)
    for _ in range(2):
        pulled = place.run("weights", "pull", "toy")
        assert pulled.returncode == 2 and message in pulled.err and len(pulled.err.splitlines()) == 1
        assert place.visible() == [] and not (place.root / "weights" / ".toy.bin.part").exists()
    place.target.write_bytes(b"mine")
    assert place.run("weights", "pull", "--force", "toy").returncode == 2
    assert place.target.read_bytes() == b"mine"


def test_a_file_of_another_size_is_not_downloaded(server, place):
    offer(server, place, size=77)
    place.run("weights", "pull", "toy")
    assert server.sent <= len(CONTENT) and len(server.requests) == 1
    assert not (place.root / "weights" / ".toy.bin.part").exists()


def test_urls_are_tried_in_order(server, place):
    urls = [f"{server.url}/gone.bin", "http://127.0.0.1:1/refused.bin", f"{server.url}/toy.bin"]
    offer(server, place, urls=urls)
    pulled = place.run("weights", "pull", "toy")
    assert pulled.returncode == 0, pulled.err
    assert [path for path, *_ in server.requests] == ["/gone.bin", "/toy.bin"]
    del server.files["/toy.bin"]
    failed = place.run("weights", "pull", "--force", "toy")
    assert failed.returncode == 2 and failed.err.count("the server says 404") == 2 and "refused" in failed.err
    assert place.target.read_bytes() == CONTENT


@pytest.mark.parametrize("scheme", ["file", "ftp", "data"])
def test_redirections_lead_to_http_alone(server, place, tmp_path, scheme):
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    server.files["/away.bin"] = {"redirect": f"{scheme}://{secret}"}
    server.files["/moved.bin"] = {"redirect": f"{server.url}/toy.bin"}
    offer(server, place, urls=[f"{server.url}/away.bin"])
    refused = place.run("weights", "pull", "toy")
    assert refused.returncode == 2 and "/away.bin" in refused.err and place.visible() == []
    offer(server, place, urls=[f"{server.url}/moved.bin"])
    assert place.run("weights", "pull", "toy").returncode == 0 and place.target.read_bytes() == CONTENT


def test_two_processes_pull_one_file(server, place):
    offer(server, place)
    processes = [place.start("weights", "pull", "toy") for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    for process in processes:
        process.communicate()
    assert place.target.read_bytes() == CONTENT and len(server.requests) == 1


def test_a_wrong_file_that_is_there(server, place):
    offer(server, place)
    place.target.parent.mkdir()
    place.target.write_bytes(OTHER)
    for arguments in (["verify"], ["verify", "toy"]):
        verified = place.run("weights", *arguments)
        assert verified.returncode == 2 and "has SHA-256" in verified.out
    pulled = place.run("weights", "pull", "toy")
    assert pulled.returncode == 2 and "--force replaces it" in pulled.err and not server.requests
    assert place.run("weights", "pull", "toy", "--force").returncode == 0
    verified = place.run("weights", "verify")
    assert verified.returncode == 0 and "toy is right" in verified.out


def test_a_mirror_serves_what_was_mirrored(server, place):
    offer(server, place)
    by_hand = place.table("hand")
    manifest = place.package / "ffplug.toml"
    manifest.write_text(manifest.read_text() + "\n" + by_hand)
    absent = place.run("weights", "mirror", "depot", "toy", "hand")
    assert absent.returncode == 2 and "get them from a test" in absent.err
    (place.root / "weights").mkdir(exist_ok=True)
    (place.root / "weights" / "hand.bin").write_bytes(OTHER)
    mirrored = place.run("weights", "mirror", "depot", "toy", "hand")
    assert mirrored.returncode == 0, mirrored.err
    assert place.visible("depot") == ["hand.bin", "index.json", "toy.bin"]
    index = json.loads((place.root / "depot" / "index.json").read_text())
    assert index["hand"]["sha256"] == digest(OTHER) and index["toy"]["size"] == len(CONTENT)

    served = {
        f"/depot/{name}": {"content": (place.root / "depot" / name).read_bytes()} for name in place.visible("depot")
    }
    for number, address in enumerate(["depot", (place.root / "depot").as_uri(), f"{server.url}/depot/"]):
        server.files, server.requests[:] = {**served}, []
        there = {"FFPLUG_MIRROR": address, "FFPLUG_WEIGHTS": f"weights{number}"}
        pulled = place.run("weights", "pull", "toy", "hand", **there)
        assert pulled.returncode == 0, pulled.err
        assert place.visible(f"weights{number}") == ["hand.bin", "toy.bin"]
        assert all(path.startswith("/depot/") for path, *_ in server.requests)

    # What is wrong in the mirror is mended, what is right stays.
    (place.root / "depot" / "toy.bin").write_bytes(OTHER)
    server.files = {"/toy.bin": {"content": CONTENT}}
    mended = place.run("weights", "mirror", "depot", "toy", "hand")
    assert mended.returncode == 0, mended.err
    assert (place.root / "depot" / "toy.bin").read_bytes() == CONTENT
    assert [path for path, *_ in server.requests][-1] == "/toy.bin"

    # The index holds the sum of weights that the manifest knows none of.
    (place.root / "depot" / "hand.bin").write_bytes(CONTENT)
    wrong = place.run("weights", "pull", "hand", FFPLUG_MIRROR="depot", FFPLUG_WEIGHTS="weights3")
    assert wrong.returncode == 2 and "has SHA-256" in wrong.err and place.visible("weights3") == []


def test_a_mirror_without_the_file_leads_to_the_urls(server, place):
    offer(server, place)
    pulled = place.run("weights", "pull", "toy", FFPLUG_MIRROR=f"{server.url}/elsewhere")
    assert pulled.returncode == 0, pulled.err
    assert [path for path, *_ in server.requests] == ["/elsewhere/toy.bin", "/toy.bin"]


def test_weights_got_by_hand(place):
    place.release(place.table())
    pulled = place.run("weights", "pull", "toy")
    assert pulled.returncode == 2 and f"get them from a test and put the file at {place.target}" in pulled.err
    assert "get by hand" in place.run("weights", "list", "toy").out
    place.target.write_bytes(CONTENT)
    assert "no checksum of it is known" in place.run("weights", "verify", "toy").out
    misspelt = place.run("weights", "pull", "toi")
    assert misspelt.returncode == 2 and "did you mean 'toy'" in misspelt.err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "../toy.bin"}, "weights.toy.file must be a plain file name without folders, got '../toy.bin'"),
        ({"file": "/etc/passwd"}, "must be a plain file name"),
        ({"file": "a\\b"}, "must be a plain file name"),
        ({"file": ".hidden"}, "must be a plain file name"),
        ({"file": "index.json"}, "must be a plain file name"),
        ({"file": 3}, "weights.toy.file must be a string, got 3"),
        ({"origin": ""}, "weights.toy.origin is missing"),
        ({"put": "x"}, "weights.toy: unknown key 'put'"),
        ({"url": "x"}, "did you mean 'urls'"),
        ({"urls": "http://a/b"}, "weights.toy.urls must be a list of strings"),
        ({"urls": ["ftp://a/b"], "sha256": "0" * 64}, "expected http://, https:// or file:// addresses"),
        ({"urls": ["https://a/b"]}, "weights.toy.sha256 is missing"),
        ({"sha256": "12345"}, "must be 64 hexadecimal digits"),
        ({"size": 0}, "weights.toy.size must be the number of bytes"),
        ({"size": True}, "weights.toy.size must be an integer, got True"),
        ({"models": [1]}, "weights.toy.models must be a list of strings"),
    ],
)
def test_a_wrong_table_of_weights_is_told(place, changes, message):
    place.release(place.table(**changes))
    listed = place.run("list")
    assert f"BROKEN: {place.package / 'ffplug.toml'}: " in listed.out and message in listed.out
    assert place.run("weights", "list", "toy").out.count("toy") == 0


@pytest.fixture
def here(place, monkeypatch):
    """This process in the place, with plugins found anew."""
    path = list(sys.path)
    for name in ("FFPLUG_PLUGINS", "FFPLUG_WEIGHTS"):
        monkeypatch.setenv(name, place.environment[name])
    monkeypatch.chdir(place.root)
    discover.cache_clear()
    yield place
    sys.path[:] = path
    discover.cache_clear()


def test_get_model_loads_weights_by_name(here, server):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    public = torchvision.models.optical_flow.raft_small(weights=None).eval()
    checkpoint = here.root / "public.pth"
    torch.save(public.state_dict(), checkpoint)
    configs = here.package / "configs"
    configs.mkdir()
    (configs / "__init__.py").write_text("")
    (configs / "toy_raft.py").write_text(
        "from mmengine.config import read_base\nwith read_base():\n    from ffplug.configs.models.raft_small import *\n"
    )
    sums = {"size": checkpoint.stat().st_size, "sha256": digest(checkpoint.read_bytes())}
    urls = [f"{server.url}/toy.bin"]
    server.files["/toy.bin"] = {"content": checkpoint.read_bytes()}
    table = here.table(models=["toy_raft"], source="torchvision", urls=urls, **sums)
    here.release(table, here.table("part"), models='toy_raft = "ffplug_released.configs.toy_raft"')

    for pretrained in (True, "toy"):
        with pytest.raises(CheckpointError, match=r"run `ffplug weights pull toy`$"):
            ffplug.get_model("toy-raft", pretrained=pretrained)
    assert not server.requests
    assert here.run("weights", "pull", "toy").returncode == 0
    expected = ffplug.convert_state_dict(public.state_dict(), "torchvision")
    built = [ffplug.get_model("toy-raft", pretrained=pretrained) for pretrained in (True, "toy", checkpoint)]
    built += [ffplug.build_model("toy_raft", "toy"), ffplug.FlowInferencer("toy_raft", "toy", device="cpu").model]
    for model in built:
        loaded = model.state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in expected.items())
    assert not any(module.training for module in ffplug.get_model("toy_raft").modules())

    here.target.write_bytes(b"\1" + here.target.read_bytes()[1:])
    with pytest.raises(CheckpointError, match=r"has SHA-256 .* run `ffplug weights pull toy --force`"):
        ffplug.get_model("toy_raft", pretrained=True)
    with pytest.raises(ConfigError, match=r"weights part are of a part of a network, not of toy_raft; .* toy$"):
        ffplug.get_model("toy_raft", pretrained="part")
    with pytest.raises(CheckpointError, match=r"nowhere.pth is neither a file nor a name of weights; .* toy$"):
        ffplug.get_model("toy_raft", pretrained="nowhere.pth")


@pytest.mark.parametrize(
    ("name", "message"), [("raft", "there are raft_large, .*raft_small"), ("raft-lage", "did you mean 'raft_large'")]
)
def test_get_model_lists_near_names(name, message):
    with pytest.raises(ConfigError, match=message):
        ffplug.get_model(name)


def test_one_name_in_two_plugins(here):
    here.release(here.table("mobile_sam"), here.table("raft_things"))
    known = known_weights()
    assert known["raft_things"].plugin == "ffplug"
    assert known["ffplug_released.raft_things"].plugin == "ffplug-released"


def test_weights_of_the_repository_name_models_and_converters_that_are_there():
    converters, models = component_owners("converters"), list_models()
    for weights in known_weights().values():
        assert weights.source is None or weights.source in converters, weights
        assert set(weights.models) <= set(models), weights
    files = [weights.file for weights in known_weights().values()]
    assert len(files) == len(set(files))


def test_listing_weights_is_light(place):
    program = (
        "import sys, ffplug.cli.weights as w; w.command.main(['list'], standalone_mode=False); "
        "assert not {'torch', 'mmengine'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=place.environment, cwd=Path(place.root))
