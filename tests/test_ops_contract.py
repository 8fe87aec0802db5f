"""The op contract: choice of backend, the build cache, failing compilers."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from ffplug.errors import ConfigError
from ffplug.ops import Op, convex_upsample, cuda, native, register_op, use_backend
from ffplug.ops.build import BuildError, cached, source_text
from ffplug.registry import OPS

CALL = """
import torch
from ffplug.ops import convex_upsample
print(float(convex_upsample(torch.ones(1, 2, 3, 3), torch.zeros(1, 36, 3, 3), 2)[0, 0, 2, 2]))
"""


def run(code, tmp_path, **variables):
    environment = {**os.environ, "FFPLUG_CACHE": str(tmp_path / "cache"), **variables}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_processes_that_start_at_once_compile_once(tmp_path):
    processes = [run(CALL, tmp_path) for _ in range(4)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [out.strip() for out, _ in outputs] == ["2.0"] * 4
    assert sum(error.count("compiled upsampling") for _, error in outputs) == 1
    out, error = run(CALL, tmp_path).communicate(timeout=300)
    assert out.strip() == "2.0" and "compiled" not in error
    assert not list((tmp_path / "cache" / "ops").glob("*.o")), "object files are left behind"


def test_without_a_compiler_the_reference_runs_and_says_so_once(tmp_path):
    code = CALL + CALL
    out, error = run(code, tmp_path, CXX="no-such-compiler").communicate(timeout=300)
    assert out.split() == ["2.0", "2.0"]
    assert error.count("PyTorch reference") == 1 and "no-such-compiler" in error


def test_a_backend_asked_for_by_name_must_be_there(tmp_path):
    process = run(CALL, tmp_path, CXX="no-such-compiler", FFPLUG_OPS="cpp")
    _, error = process.communicate(timeout=300)
    assert process.returncode and "FFPLUG_OPS=cpp was asked for" in error and "no-such-compiler" in error


def test_a_folder_that_others_can_write_is_not_used(tmp_path):
    folder = tmp_path / "cache" / "ops"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    out, error = run(CALL, tmp_path).communicate(timeout=300)
    assert out.strip() == "2.0" and "can be written by" in error
    assert not list(folder.iterdir())


def test_a_failing_compile_falls_back_with_the_compilers_words(tmp_path):
    (tmp_path / "broken.cpp").write_text('#include "ffplug.h"\nthis is no C++;\n')
    (tmp_path / "plugin_with_op.py").write_text(
        textwrap.dedent("""
        from pathlib import Path
        from ffplug.ops import Op, register_op
        from ffplug.ops.native import NativeSource

        source = NativeSource(Path(__file__).with_name("broken.cpp"))

        @register_op
        class Double(Op):
            name = "double_of"
            schema = "(Tensor x) -> Tensor"
            def reference(self, x):
                return 2 * x
            def fake(self, x):
                return x.new_empty(x.shape)
            def cpp(self, x):
                out = self.fake(x)
                source.call("double_of", x.contiguous(), out, x.numel())
                return out
        """)
    )
    code = """
    import torch
    from plugin_with_op import Double
    op = Double()
    print(float(op(torch.ones(1))), float(op(torch.ones(1))), op.backends(), torch.ops.plugin_with_op.double_of)
    """
    process = run(textwrap.dedent(code), tmp_path, PYTHONPATH=str(tmp_path))
    out, error = process.communicate(timeout=300)
    assert out.startswith("2.0 2.0 ('torch',)"), error
    assert error.count("broken.cpp did not compile") == 1 and "this is no C++" in error


def test_an_unknown_backend_lists_near_names(monkeypatch):
    monkeypatch.setenv("FFPLUG_OPS", "cud")
    with pytest.raises(ConfigError, match="did you mean 'cuda'"):
        convex_upsample(torch.ones(1, 2, 2, 2), torch.zeros(1, 36, 2, 2), 2)
    with pytest.raises(ConfigError, match="expected one of"), use_backend("gpu"):
        pass
    monkeypatch.setenv("FFPLUG_OPS", "auto")
    monkeypatch.setenv("FFPLUG_CPU", "sse9")
    with pytest.raises(ConfigError, match="FFPLUG_CPU='sse9'"):
        convex_upsample(torch.ones(1, 2, 2, 2), torch.zeros(1, 36, 2, 2), 2)


def test_the_hash_follows_included_headers(tmp_path):
    (tmp_path / "a.h").write_text('#include "b.h"\n')
    (tmp_path / "b.h").write_text("int one;\n")
    (tmp_path / "unrelated.h").write_text("int other;\n")
    source = tmp_path / "source.cpp"
    source.write_text('#include "a.h"\n')
    before = source_text(source, [tmp_path])
    (tmp_path / "unrelated.h").write_text("int changed;\n")
    assert source_text(source, [tmp_path]) == before
    (tmp_path / "b.h").write_text("int two;\n")
    assert source_text(source, [tmp_path]) != before


def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("ffplug.ops.build.cache_folder", lambda: tmp_path)

    def fail(target):
        target.write_bytes(b"half")
        raise BuildError("no")

    with pytest.raises(BuildError):
        cached("thing", ["key"], ".so", fail)
    assert [path.suffix for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_one_thread_pool(tmp_path):
    code = (
        CALL + "print({line.split()[-1] for line in open('/proc/self/maps') if 'gomp' in line.split()[-1]}.__len__())"
    )
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    out, _ = run(code, tmp_path).communicate(timeout=300)
    assert out.split()[-1] == "1"


def test_results_do_not_depend_on_the_number_of_threads():
    torch.manual_seed(0)
    flow, logits = torch.randn(1, 2, 13, 17), torch.randn(1, 576, 13, 17)
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(convex_upsample(flow, logits))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_an_op_of_its_reference_alone_needs_no_schema():
    @register_op
    class Halve(Op):
        name = "test_halve"

        def reference(self, x, by=2):
            return x / by

    try:
        assert float(Halve()(torch.ones(1))) == 0.5 and Halve().backends() == ("torch",)
    finally:
        OPS.module_dict.pop("test_halve")


@pytest.mark.skipif(cuda.compiler_problem() is not None, reason=str(cuda.compiler_problem()))
def test_a_cuda_source_that_does_not_compile_names_the_line(tmp_path):
    source = tmp_path / "broken.cu"
    source.write_text('#include "ffplug_cuda.h"\nFFPLUG_KERNEL f(scalar* x) { y[0] = 1; }\n')
    with pytest.raises(BuildError, match=r"broken.cu\(2\)"):
        cuda.compile_cubin(source, torch.float32, "sm_90")


def test_cpu_kernels_build_for_every_instruction_set():
    for name in native.INSTRUCTION_SETS:
        with native.use_instruction_set(name):
            assert convex_upsample._has("cpp")
            assert next(source for source in native.SOURCES if source.path.name == "upsampling.cpp").build().exists()
