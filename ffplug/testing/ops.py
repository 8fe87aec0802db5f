"""The conformance test of an op: every backend on this machine must give the reference's numbers.

    from ffplug.testing.ops import OpConformance

    class TestConvexUpsample(OpConformance):
        op = convex_upsample
        cases = {
            "wide": lambda make: (make(2, 2, 5, 70), make(2, 9 * 16, 5, 70), 4),
            "empty": lambda make: (make(0, 2, 5, 7), make(0, 9 * 16, 5, 7), 4),
        }

The op's example, which is the smallest case, and every case beside it run on C++ for each instruction set of this
machine, on CUDA where there is a device, and on CUDA's kernels emulated on the host: values and gradients in float32
and float64, non-contiguous arguments, half precision, ``torch.autograd.gradcheck``, ``torch.library.opcheck``,
``torch.compile``, and equal bits twice in deterministic mode.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ffplug.ops import cuda, native
from ffplug.ops.contract import Op, emulated_cuda, toolchain_problem, use_backend

if TYPE_CHECKING:
    import pytest

Case = Callable[["Maker"], tuple[Any, ...]]


class Maker:
    """Makes the random tensors of a case, the same for every backend.

    Args:
        dtype: of the floating tensors.
        device: where they lie.
    """

    def __init__(self, dtype: torch.dtype, device: str = "cpu") -> None:
        self.dtype = dtype
        self.device = device
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Normal values with deviation ``scale``; drawn in float64, so that all types get the same numbers."""
        values = torch.randn(shape, generator=self.generator, dtype=torch.float64) * scale
        return values.to(self.dtype).to(self.device)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform values in low..high."""
        values = torch.rand(shape, generator=self.generator, dtype=torch.float64) * (high - low) + low
        return values.to(self.dtype).to(self.device)

    def integers(self, *shape: int, high: int, low: int = 0) -> Tensor:
        """Integers in low..high-1, int64."""
        return torch.randint(low, high, shape, generator=self.generator).to(self.device)

    def tensor(self, values: Any) -> Tensor:
        """The given values in the case's type."""
        return torch.tensor(values, dtype=self.dtype, device=self.device)


def available_backends(op: Op) -> list[str]:
    """Labels of what can be tested here, such as ``cpp-avx512``, ``cpp-portable``, ``cuda-emulated``, ``cuda``."""
    labels = []
    if op._has("cpp") and native.problem() is None:
        sets = list(native.INSTRUCTION_SETS)
        labels += [f"cpp-{name}" for name in sets[sets.index(native.instruction_set()) :]]
    if op._has("cuda"):
        labels += ["cuda-emulated"] if native.problem() is None else []
        labels += ["cuda"] if cuda.problem() is None else []
    if op._has("triton") and toolchain_problem("triton") is None:
        labels.append("triton")
    return labels


@contextlib.contextmanager
def on_backend(label: str) -> Iterator[str]:
    """Run ops on the backend with this label; yields the device for their tensors."""
    with contextlib.ExitStack() as stack:
        if label == "cuda-emulated":
            stack.enter_context(emulated_cuda())
        elif label.startswith("cpp-"):
            stack.enter_context(native.use_instruction_set(label[4:]))
            stack.enter_context(use_backend("cpp"))
        else:
            stack.enter_context(use_backend(label))
        on_device = label in ("cuda", "triton") and torch.cuda.is_available()
        yield "cuda" if on_device else "cpu"


def as_tuple(results: Any) -> tuple[Tensor, ...]:
    """One result or several, as a tuple."""
    return tuple(results) if isinstance(results, (tuple, list)) else (results,)


def noncontiguous(value: Any) -> Any:
    """The same numbers with every second element of memory unused; other arguments as they are."""
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    return torch.stack((value, value), dim=-1)[..., 0]


class OpConformance:
    """Base of an op's test class; see the module's text.

    Attributes:
        op: the op.
        cases: name to a function that makes the arguments, beside the example.
        example: the smallest case, in place of the op's own (a static method).
        tolerance: absolute and relative, in float32, in place of the op's; float64 gets 1e-9 of both.
        smooth: whether the gradient of the example can be checked by finite differences.
    """

    op: ClassVar[Op]
    cases: ClassVar[dict[str, Case]] = {}
    example: ClassVar[Case | None] = None
    tolerance: ClassVar[float | None] = None
    smooth: ClassVar[bool] = True

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        """Give each test its backends and cases."""
        op_cls = metafunc.cls
        if "backend" in metafunc.fixturenames:
            labels = available_backends(op_cls.op)
            fast = [label for label in labels if not label.startswith("cpp-")] + [
                label for label in labels if label.startswith("cpp-")
            ][:1]
            every = metafunc.function.__name__ == "test_values"
            metafunc.parametrize("backend", labels if every else fast)
        if "case" in metafunc.fixturenames:
            cases = {"example": op_cls.example or op_cls.op.example, **op_cls.cases}
            metafunc.parametrize("case", cases.values(), ids=cases.keys())
        if "half" in metafunc.fixturenames:
            metafunc.parametrize("half", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
        if "dtype" in metafunc.fixturenames:
            metafunc.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])

    def _example(self, make: Maker) -> tuple[Any, ...]:
        return (type(self).example or self.op.example)(make)

    @property
    def _tolerance(self) -> float:
        return self.op.tolerance if self.tolerance is None else self.tolerance

    def _leaves(self, values: Sequence[Any]) -> list[Tensor]:
        names = list(self.op._signature.parameters)
        given = (values[names.index(name)] for name in self.op.differentiable)
        return [value for value in given if value is not None]

    def _with_grad(self, values: Sequence[Any]) -> tuple[Any, ...]:
        names = list(self.op._signature.parameters)
        return tuple(
            value.detach().requires_grad_() if name in self.op.differentiable and value is not None else value
            for name, value in zip(names, values, strict=True)
        )

    def _close(self, actual: Any, expected: Any, tolerance: float) -> None:
        for found, wanted in zip(as_tuple(actual), as_tuple(expected), strict=True):
            torch.testing.assert_close(found.cpu(), wanted.cpu(), atol=tolerance, rtol=tolerance)

    def _gradients(self, values: Sequence[Any], through: Callable[..., Any]) -> list[Tensor]:
        leaves = self._with_grad(values)
        results = [result for result in as_tuple(through(*leaves)) if result.requires_grad]
        generator = torch.Generator().manual_seed(1)
        weights = [torch.randn(r.shape, generator=generator, dtype=torch.float64).to(r) for r in results]
        if not results:
            return []
        found = torch.autograd.grad(results, self._leaves(leaves), weights, allow_unused=True)
        return [
            torch.zeros_like(leaf) if grad is None else grad
            for leaf, grad in zip(self._leaves(leaves), found, strict=True)
        ]

    def test_values(self, backend: str, case: Case, dtype: torch.dtype) -> None:
        """Values equal the reference's, also from arguments that are not contiguous."""
        expected = self.op.reference(*self.op.prepare(*case(Maker(dtype))))
        with on_backend(backend) as device:
            values = self.op.prepare(*case(Maker(dtype, device)))
            tolerance = self._tolerance if dtype == torch.float32 else 1e-9
            self._close(self.op(*values), expected, tolerance)
            self._close(self.op(*map(noncontiguous, values)), expected, tolerance)

    def test_gradients(self, backend: str, case: Case, dtype: torch.dtype) -> None:
        """Gradients of all results equal those of the reference."""
        if not self.op.differentiable:
            return
        expected = self._gradients(self.op.prepare(*case(Maker(dtype))), self.op.reference)
        with on_backend(backend) as device:
            values = self.op.prepare(*case(Maker(dtype, device)))
            tolerance = self._tolerance * 10 if dtype == torch.float32 else 1e-8
            self._close(self._gradients(values, self.op), expected, tolerance)
            if device == "cpu" or not self.op.nondeterministic:
                again = self._gradients(values, self.op)
                for first, second in zip(self._gradients(values, self.op), again, strict=True):
                    assert torch.equal(first, second), "two equal calls gave different gradients"

    def test_gradcheck(self, backend: str) -> None:
        """The gradient equals finite differences in float64."""
        if not self.op.differentiable or not self.smooth:
            return
        with on_backend(backend) as device:
            values = self._with_grad(self.op.prepare(*self._example(Maker(torch.float64, device))))
            assert torch.autograd.gradcheck(self.op, values, nondet_tol=1e-9)

    def test_half(self, backend: str, half: torch.dtype) -> None:
        """Half precision gives the reference's result on the same rounded arguments, and its type."""
        if self.op.half_tolerance is None:
            return
        values = self.op.prepare(*self._example(Maker(half)))
        exact = self.op.reference(*(v.float() if isinstance(v, Tensor) and v.dtype == half else v for v in values))
        promised = self.op.fake(*(v.to("meta") if isinstance(v, Tensor) else v for v in values))
        with on_backend(backend) as device:
            found = self.op(*self.op.prepare(*self._example(Maker(half, device))))
        for result, wanted, meta in zip(as_tuple(found), as_tuple(exact), as_tuple(promised), strict=True):
            assert result.dtype == meta.dtype
            torch.testing.assert_close(
                result.cpu().float(), wanted.float(), atol=self.op.half_tolerance, rtol=self.op.half_tolerance
            )

    def test_opcheck(self, backend: str) -> None:
        """``torch.library`` finds schema, fake kernel (shapes, types, strides) and autograd registration in order."""
        with on_backend(backend) as device:
            values = self.op.prepare(*self._example(Maker(torch.float32, device)))
            torch.library.opcheck(self.op._torch_op, self._with_grad(values))

    def test_compile(self, backend: str) -> None:
        """The op is one node of a compiled graph, which gives the same values."""
        with on_backend(backend) as device:
            values = self.op.prepare(*self._example(Maker(torch.float32, device)))
            torch._dynamo.reset()
            compiled = torch.compile(lambda *args: self.op(*args), backend="aot_eager", fullgraph=True)
            self._close(compiled(*values), self.op(*values), 1e-6)

    def test_deterministic(self, backend: str) -> None:
        """In deterministic mode two calls give the same bits, values and gradients."""
        if backend in ("cuda", "triton") and not torch.cuda.is_available():
            return
        with on_backend(backend) as device:
            values = self.op.prepare(*self._example(Maker(torch.float32, device)))
            torch.use_deterministic_algorithms(True)
            try:
                first, second = (self._gradients(values, self.op) + list(as_tuple(self.op(*values))) for _ in range(2))
            finally:
                torch.use_deterministic_algorithms(False)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
