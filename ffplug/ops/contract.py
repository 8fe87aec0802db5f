"""The op contract: one definition in PyTorch, and as many faster backends as a machine can run.

An op is a subclass of :class:`Op` under :func:`register_op`. Its :meth:`Op.reference` is the definition; a method
named after a backend (``cpp``, ``cuda``, ``triton``) is that backend's forward, and ``cpp_backward`` and so on its
gradient. :func:`register_op` makes a ``torch.library`` custom op of it, with fake kernel and autograd formula, so that
``torch.compile`` and ``torch.export`` see one node.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ffplug.errors import ConfigError, did_you_mean
from ffplug.ops import cuda, native
from ffplug.ops.build import BuildError, logger

if TYPE_CHECKING:
    from mmengine.registry import Registry

CHOICES = ("auto", "torch", "cpp", "cuda", "triton")
BACKENDS = CHOICES[2:]

_override: list[str] = []
_emulate_cuda = False
_broken: set[tuple[str, str]] = set()


def requested_backend() -> str:
    """The backend asked for: by :func:`use_backend`, else by the variable ``FFPLUG_OPS``; ``auto`` by default."""
    if _override:
        return _override[-1]
    choice = os.environ.get("FFPLUG_OPS", "auto")
    if choice not in CHOICES:
        raise ConfigError(f"FFPLUG_OPS={choice!r}: expected one of {', '.join(CHOICES)}{did_you_mean(choice, CHOICES)}")
    return choice


@contextlib.contextmanager
def use_backend(choice: str) -> Iterator[None]:
    """Ask for a backend within the context, whatever ``FFPLUG_OPS`` says."""
    if choice not in CHOICES:
        raise ConfigError(f"backend {choice!r}: expected one of {', '.join(CHOICES)}{did_you_mean(choice, CHOICES)}")
    _override.append(choice)
    try:
        yield
    finally:
        _override.pop()


@contextlib.contextmanager
def emulated_cuda() -> Iterator[None]:
    """Run the CUDA kernels on CPU tensors, thread by thread, within the context: for tests without a device."""
    global _emulate_cuda
    before, _emulate_cuda = _emulate_cuda, True
    try:
        with use_backend("cuda"):
            yield
    finally:
        _emulate_cuda = before


def toolchain_problem(backend: str) -> str | None:
    """Why ``backend`` can't run on this machine, or None."""
    if backend == "cpp":
        return native.problem()
    if backend == "cuda":
        return None if _emulate_cuda else cuda.problem()
    if backend == "triton":
        if os.environ.get("TRITON_INTERPRET") == "1":
            return None
        try:
            import triton  # noqa: F401
        except ImportError:
            return "triton is not installed (torch's CUDA builds bring it along)"
        return None if torch.cuda.is_available() else "torch sees no CUDA device"
    return None


class Op:
    """An operator: its PyTorch reference is its definition, other backends must give the same numbers.

    Attributes:
        name: in the registry :data:`ffplug.registry.OPS`; the ``torch.library`` op is ``<package>::<name>``.
        schema: arguments and results in ``torch.library``'s notation; arguments in :meth:`reference`'s order. An op
            without one has its reference alone.
        differentiable: the tensor arguments that get a gradient; they may be None where the schema says so.
        saves_outputs: whether the gradient reads the results; else they are not kept for it.
        nondeterministic: backends, or backends' gradients (``cuda_backward``), whose sums depend on the order in
            which threads arrive; ``torch.use_deterministic_algorithms(True)`` goes past them.
        half: backends that take half precision as it is; the others compute in float32 and round the result.
        autocast: whether floating arguments become float32 under autocast.
        order: backends to try on each kind of device, the fastest first.
        tolerance: how far a backend may be from the reference in float32, absolute and relative, on numbers about 1.
        half_tolerance: the same in bfloat16; None where half precision holds too little to compare.
    """

    name: ClassVar[str]
    schema: ClassVar[str | None] = None
    differentiable: ClassVar[tuple[str, ...]] = ()
    saves_outputs: ClassVar[bool] = False
    nondeterministic: ClassVar[frozenset[str]] = frozenset()
    half: ClassVar[frozenset[str]] = frozenset()
    autocast: ClassVar[bool] = True
    order: ClassVar[dict[str, tuple[str, ...]]] = {"cpu": ("cpp",), "cuda": ("cuda", "triton")}
    tolerance: ClassVar[float] = 1e-5
    half_tolerance: ClassVar[float | None] = 2e-2

    def reference(self, *args: Any) -> Any:
        """The definition, in PyTorch operations with their own gradients."""
        raise NotImplementedError

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:
        """Small arguments with odd sizes, for checks; ``make`` (:class:`ffplug.testing.ops.Maker`) gives tensors.

        Finite differences go through each of their numbers, so they should be few, and lie away from kinks.
        """
        raise NotImplementedError

    def fake(self, *args: Any) -> Any:
        """Empty results of the right shape, type and strides, from arguments without data."""
        raise NotImplementedError

    def prepare(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Check the arguments of a call and bring them to the schema's form and order."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.args

    def supports(self, backend: str, *args: Any) -> bool:
        """Whether ``backend`` can take these arguments; the device is seen to already."""
        return True

    def backends(self) -> tuple[str, ...]:
        """The backends that this op has and this machine can run, and ``torch``, the reference."""
        return (*(name for name in BACKENDS if self._has(name) and self._problem(name) is None), "torch")

    def missing(self) -> dict[str, str]:
        """The backends that this op has and this machine can't run, each with the reason."""
        reasons = {name: self._problem(name) for name in BACKENDS if self._has(name)}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the op on the backend that is chosen; arguments and results are those of :meth:`reference`."""
        values = self.prepare(*args, **kwargs)
        if self.schema is None:
            return self.reference(*values)
        tensors = _tensors(values)
        device = tensors[0].device.type if tensors else "cpu"
        autocast = torch.is_autocast_enabled(device)
        if self.autocast and tensors and autocast:
            values = _cast(values, torch.float32)
        if torch.compiler.is_compiling():
            return self._torch_op(*values)
        with torch.autocast(device, enabled=False) if autocast else contextlib.nullcontext():
            if not self.differentiable and _is_plain(tensors):
                return self._run("", values)  # nobody watches, and the dispatcher takes time
            if self._choose("", values) == "torch":
                return self.reference(*values)
            return self._torch_op(*values)

    def _has(self, backend: str) -> bool:
        return callable(getattr(self, backend, None))

    def _problem(self, backend: str) -> str | None:
        if (self.name, backend) in _broken:
            return "it failed to build in this process; see the log"
        return toolchain_problem(backend)

    def _choose(self, suffix: str, values: Sequence[Any]) -> str:
        """The backend for these arguments; ``suffix`` is empty for the forward and ``_backward`` for the gradient."""
        choice = requested_backend()
        if choice == "torch":
            return "torch"
        tensors = _tensors(values)
        device = tensors[0].device.type if tensors else "cpu"
        candidates = ("cuda",) if _emulate_cuda else self.order.get(device, ())
        if choice != "auto":
            candidates = tuple(name for name in candidates if name == choice)
        for backend in candidates:
            if not self._has(backend + suffix) or not self.supports(backend, *values):
                continue
            if torch.are_deterministic_algorithms_enabled() and backend + suffix in self.nondeterministic:
                continue
            reason = self._problem(backend)
            if reason is None:
                return backend
            if choice != "auto":
                raise ConfigError(f"FFPLUG_OPS={choice} was asked for, but {self.name} can't run on it: {reason}")
            _tell_once(f"{self.name} runs on its PyTorch reference, which is slower: {reason}", reason)
        return "torch"

    def _run(self, suffix: str, values: Sequence[Any], *before: Any) -> Any:
        """Run the forward, or the gradient, on the chosen backend; fall back once where it does not build."""
        while True:
            backend = self._choose(suffix, values)
            if backend == "torch":
                return self._reference_backward(*before, *values) if suffix else self.reference(*values)
            method = getattr(self, backend + suffix)
            narrow = [t for t in _tensors(values) if t.dtype in (torch.float16, torch.bfloat16)]
            try:
                if narrow and backend not in self.half:
                    wide = method(*_cast(before, torch.float32), *_cast(values, torch.float32))
                    if suffix:
                        return wide
                    meta = self.fake(*(_to_meta(value) for value in values))
                    return _like(wide, meta)
                return method(*before, *values)
            except BuildError as error:
                if requested_backend() != "auto":
                    raise
                _broken.add((self.name, backend))
                logger().warning("%s falls back from %s: %s", self.name, backend, error)

    def _reference_backward(self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Any, *values: Any) -> list:
        with _recording():
            names = list(self._signature.parameters)
            given = {name: values[names.index(name)] for name in self.differentiable}
            leaves = {name: value.detach().requires_grad_() for name, value in given.items() if value is not None}
            results = self.reference(*(leaves.get(name, value) for name, value in zip(names, values, strict=True)))
            results = results if isinstance(results, tuple) else (results,)
            pairs = [(r, g) for r, g in zip(results, grads, strict=True) if r.requires_grad]
            wanted = [leaves[name] for name, need in zip(self.differentiable, needs, strict=True) if need]
            found = iter(
                torch.autograd.grad([r for r, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True)
                if pairs
                else [None] * len(wanted)
            )
        return [next(found) if need else None for need in needs]

    _signature: ClassVar[inspect.Signature]
    _torch_op: ClassVar[Any]


@contextlib.contextmanager
def _recording() -> Iterator[None]:
    """Record gradients inside a custom op, where torch has taken autograd off the dispatcher."""
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in ("AutogradOther", "AutogradCPU", "AutogradCUDA", "AutogradMeta"):
        excluded = excluded.remove(getattr(torch._C.DispatchKey, key))
    included = torch._C._dispatch_tls_local_include_set()
    with torch._C._ForceDispatchKeyGuard(included, excluded), torch.enable_grad():
        yield


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(item for item in value if isinstance(item, Tensor))
    return found


def _is_plain(tensors: Sequence[Tensor]) -> bool:
    """Whether these are tensors of torch's own class, and nothing traces, transforms or counts what is done to them."""
    return (
        all(type(tensor) is Tensor for tensor in tensors)
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._get_tracing_state() is None
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def _cast(values: Sequence[Any], dtype: torch.dtype) -> tuple[Any, ...]:
    """Half-precision tensors among the arguments to ``dtype``; float64 stays."""

    def cast(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
            return value.to(dtype)
        if isinstance(value, (list, tuple)) and _tensors(value):
            return [cast(item) for item in value]
        return value

    return tuple(map(cast, values))


def _to_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, (list, tuple)) and _tensors(value):
        return [_to_meta(item) for item in value]
    return value


def _like(results: Any, meta: Any) -> Any:
    if isinstance(results, tuple):
        return tuple(r.to(m.dtype) for r, m in zip(results, meta, strict=True))
    return results.to(meta.dtype)


_told: set[str] = set()


def _tell_once(message: str, key: str) -> None:
    if key not in _told:
        _told.add(key)
        logger().warning(message)


def _registry_of(package: str) -> Registry:
    """The registry of a package's ops: its own where it has one, else the core's."""
    from ffplug.registry import OPS

    try:
        importlib.import_module(f"{package}.registry")
    except ModuleNotFoundError as error:
        if error.name not in (package, f"{package}.registry"):
            raise
    return OPS.children.get(package, OPS)


def register_op(cls: type[Op]) -> type[Op]:
    """Class decorator: put an op into its package's registry ``OPS`` and into ``torch.library``, under its ``name``.

    The registry is the child of :data:`ffplug.registry.OPS` that the package's ``registry.py`` makes, or that one
    itself where it makes none. The namespace in ``torch.library`` is the import package that defines the class.
    """
    cls._signature = inspect.Signature(list(inspect.signature(cls.reference).parameters.values())[1:])
    if importlib.util.find_spec("mmengine") is not None:  # the ops themselves need torch alone
        _registry_of(cls.__module__.partition(".")[0]).register_module(name=cls.name, module=cls)
    if cls.schema is None:
        return cls
    op, names = cls(), list(cls._signature.parameters)
    qualified = f"{cls.__module__.split('.')[0]}::{cls.name}"
    arguments = cls.schema[1 : cls.schema.rindex("->")].strip().rstrip(")")

    def forward(*values: Any) -> Any:
        return op._run("", values)

    forward_op = torch.library.custom_op(qualified, forward, mutates_args=(), schema=cls.schema)
    forward_op.register_fake(op.fake)
    if cls.differentiable:
        gradient_schema = f"(bool[] needs, Tensor[] grads, Tensor[] outputs, {arguments}) -> Tensor[]"

        def gradient(needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *values: Any) -> list:
            found = op._run("_backward", values, needs, grads, outputs)
            result: list[Tensor] = []
            taken = {tensor.untyped_storage().data_ptr() for tensor in (*grads, *outputs, *_tensors(values))}
            for name, need, grad in zip(cls.differentiable, needs, found, strict=True):
                value = values[names.index(name)]
                if not need:
                    result.append(grads[0].new_empty(0))
                    continue
                grad = value.new_zeros(value.shape) if grad is None else grad.to(value.dtype).contiguous()
                # A custom op's results share no memory with each other or with what came in.
                place = grad.untyped_storage().data_ptr()
                result.append(grad.clone() if place in taken else grad)
                taken.add(place)
            return result

        gradient_op = torch.library.custom_op(
            f"{qualified}_backward", gradient, mutates_args=(), schema=gradient_schema
        )

        @gradient_op.register_fake
        def _(needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *values: Any) -> list[Tensor]:
            arguments = (values[names.index(name)] for name in cls.differentiable)
            return [
                value.new_empty(value.shape) if need else grads[0].new_empty(0)
                for need, value in zip(needs, arguments, strict=True)
            ]

        # A list of tensors takes a list of gradients, also where it gets none.
        arguments_of = forward_op._opoverload._schema.arguments
        lists = {index for index, argument in enumerate(arguments_of) if str(argument.type) == "List[Tensor]"}

        def setup(ctx: Any, inputs: tuple, output: Any) -> None:
            outputs = output if isinstance(output, tuple) else (output,)
            places = [i for i, value in enumerate(inputs) if isinstance(value, Tensor)]
            kept = outputs if cls.saves_outputs else ()
            ctx.save_for_backward(*kept, *(inputs[i] for i in places))
            ctx.kept, ctx.places = len(kept), places
            ctx.plain = [None if isinstance(value, Tensor) else value for value in inputs]

        def backward(ctx: Any, *grads: Tensor | None) -> tuple:
            saved = ctx.saved_tensors
            values = list(ctx.plain)
            for place, tensor in zip(ctx.places, saved[ctx.kept :], strict=True):
                values[place] = tensor
            needs = [ctx.needs_input_grad[names.index(name)] for name in cls.differentiable]
            found = gradient_op(needs, list(grads), list(saved[: ctx.kept]), *values)
            found = dict(zip(cls.differentiable, found, strict=True))
            wanted = {name for name, need in zip(cls.differentiable, needs, strict=True) if need}
            return tuple(
                found[name] if name in wanted else [None] * len(ctx.plain[index]) if index in lists else None
                for index, name in enumerate(names)
            )

        forward_op.register_autograd(backward, setup_context=setup)
    cls._torch_op = staticmethod(forward_op)
    return cls
