"""The checks of the conformance kit, in the order in which they run; see :mod:`ffplug.testing.conformance`."""

from __future__ import annotations

import ast
import copy
import dataclasses
import fnmatch
import functools
import importlib.metadata
import json
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine import registry as roots
from mmengine.config import Config
from mmengine.registry import Registry
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ffplug.config import load_config, validate_config
from ffplug.errors import CheckpointError, FFPlugError
from ffplug.ops.contract import Op
from ffplug.plugin import KINDS, find_config
from ffplug.processes import fresh_processes
from ffplug.structures import broken_promises
from ffplug.testing.subject import Finding, LeftOut, Subject, build, in_folder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HEAVY = ("torch", "mmengine", "mmcv", "mmpretrain", "torchvision", "timm", "transformers", "diffusers", "cv2")
"""Packages that take long to import, or that import torch."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One promise of every plugin.

    Attributes:
        name: short, an identifier.
        promise: what holds when the check passes, in one line.
        cases: names of what is checked in a plugin; none where the plugin has nothing of the kind.
        run: checks one case; raises :class:`Finding`, or :class:`LeftOut`.
    """

    name: str
    promise: str
    cases: Callable[[Subject], Iterable[str]]
    run: Callable[[Subject, str], None]

    def __call__(self, subject: Subject, case: str) -> None:
        """Check one case; an error that the check did not foresee becomes a finding as well."""
        try:
            self.run(subject, case)
        except (Finding, LeftOut):
            raise
        except Exception as error:
            raise subject.explain(case, f"{self.name} ends with", error) from error


CHECKS: list[Check] = []
"""All checks, in the order in which they run."""


def check(promise: str, cases: Callable[[Subject], Iterable[str]]) -> Callable[[Callable], Callable]:
    """Make a check of a function ``(subject, case)``; the function's name is the check's."""

    def register(run: Callable[[Subject, str], None]) -> Callable[[Subject, str], None]:
        CHECKS.append(Check(run.__name__, promise, cases, run))
        return run

    return register


def _configs(subject: Subject) -> list[str]:
    return [*subject.plugin.models, *subject.plugin.configs]


def _models(subject: Subject) -> list[str]:
    return [*subject.plugin.models]


def _ops(subject: Subject) -> list[str]:
    from ffplug.testing.ops import available_backends

    names = subject.plugin.components.get("ops", ())
    registered = {name: subject.registry("ops").module_dict.get(name) for name in names}
    return [
        f"ops:{name}:{label}"
        for name, cls in registered.items()
        for label in (one_cpp(available_backends(cls())) if _is_op(cls) else ["torch"])
    ]


def _is_op(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, Op)


def one_cpp(labels: list[str]) -> list[str]:
    """Of several instruction sets, the first alone."""
    cpp = [label for label in labels if label.startswith("cpp-")]
    return [label for label in labels if label not in cpp[1:]]


# ---------------------------------------------------------------------------------------------------------------
# The package.


@check("the package and its manifest are read without importing torch", lambda subject: [subject.package])
def light_import(subject: Subject, case: str) -> None:
    """Import the package in a fresh process, and see what came along."""
    program = (
        "import importlib, json, sys; from ffplug.plugin import discover; discover(); "
        "importlib.import_module(sys.argv[1]); print(json.dumps([*sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program, case], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Finding(case, f"fails to import: {done.stderr.strip().splitlines()[-1]}", "mend its __init__.py")
    modules = json.loads(done.stdout.splitlines()[-1])
    heavy = [name for name in HEAVY if name in modules]
    if heavy:
        own = [name for name in modules if name.startswith(f"{case}.")]
        raise Finding(
            f"{case}/__init__.py",
            f"importing the package imports {', '.join(heavy)} (by way of {', '.join(own) or 'itself'})",
            "import nothing heavy there: a registry's `locations` load modules when a type of theirs is looked up",
        )


@check("manifest and registries hold the same", lambda subject: list(KINDS))
def manifest(subject: Subject, case: str) -> None:
    """Compare the names of one kind; the registry's scope is the package, its parent a root."""
    promised = set(subject.plugin.components.get(case, ()))
    registry = subject.registry(case)
    where = f"{subject.package}/ffplug.toml"
    if registry is None:
        if promised:
            raise Finding(
                f"{subject.package}/registry.py",
                f"has no {KINDS[case]}, but the manifest lists {case}: {', '.join(sorted(promised))}",
                f'add {KINDS[case]} = Registry(..., scope="{subject.package}", locations=[...])',
            )
        return
    missing, more = promised - set(registry.module_dict), set(registry.module_dict) - promised
    if missing:
        raise Finding(
            where,
            f"components.{case} lists {', '.join(sorted(missing))}, which nothing registers",
            f"register it in a module that {', '.join(registry._locations) or 'a location'} imports, or strike it out",
        )
    if more:
        raise Finding(where, f"components.{case} lacks {', '.join(sorted(more))}", "add what is registered")
    if registry.scope != subject.package or registry.parent not in _roots():
        raise Finding(
            f"{subject.package}/registry.py",
            f"{KINDS[case]} has the scope {registry.scope!r} and the parent {registry.parent}",
            f"make it a direct child of MMEngine's root with scope={subject.package!r}: others resolve differently "
            "under different default scopes",
        )


def _roots() -> list[Registry | None]:
    from ffplug import registry

    # The core's own roots (ops, converters ...) have no parent, and a plugin's are their children.
    own = [value for value in vars(registry).values() if isinstance(value, Registry) and value.parent is None]
    return [*(value for value in vars(roots).values() if isinstance(value, Registry)), *own, None]


@check("everything registered builds from its documented minimal config", lambda subject: subject.components())
def types(subject: Subject, case: str) -> None:
    """Build one component from the Example of its docstring, models without memory."""
    kind, _, name = case.partition(":")
    cls = subject.component(case)
    where = subject.where(cls)
    if not (cls.__doc__ or "").strip():
        raise Finding(where, "has no docstring", "say what it is, and its arguments with shapes and units")
    if kind == "loops":
        raise LeftOut("a loop is built by a Runner, in training")
    if not isinstance(cls, type):
        return  # an op, a converter, a layout: registered as it is
    more: dict[str, Any] = {}
    if kind == "samplers":
        more["dataset"] = range(8)
    elif kind == "optim_wrappers":
        more["optimizer"] = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    config = subject.example(case)
    try:
        with torch.device("meta" if kind == "models" else "cpu"), in_folder(subject.folder):
            if kind == "datasets":
                _write_examples(subject, config)
            build(kind, copy.deepcopy(config), case, **more)
    except LeftOut:
        raise
    except CheckpointError as error:
        raise LeftOut(str(error)) from error  # it needs a file that is not here
    except Exception as error:
        example = "its Example" if len(config) > 1 else "its name alone (it has no Example)"
        raise subject.explain(
            where,
            f"does not build from {example}:",
            error,
            f'give its docstring an "Example:" with an indented dict(type="{subject.package}.{name}", ...) that builds',
        ) from error


@check("every config loads, is valid, builds, and says the same after dump and reload", _configs)
def configs(subject: Subject, case: str) -> None:
    """Load one config, check it as a run does, dump, reload, compare, build the model without memory."""
    try:
        find_config(case)
        config = load_config(case)
        validate_config(config)
    except FFPlugError as error:
        if "pip install" in str(error):
            raise LeftOut(str(error)) from error
        raise subject.explain(case, "is no valid config:", error, f"see `ffplug config {case} --origin`") from error
    target = subject.folder / f"{case}.py"
    plain = "use plain values in configs: numbers, strings, lists, dicts; types as strings"
    try:
        config.dump(target)
        again = Config.fromfile(str(target))
    except Exception as error:
        raise subject.explain(case, "can't be dumped and loaded again:", error, plain) from error
    if again.to_dict() != config.to_dict():
        keys = [key for key in config if config.get(key) != again.get(key)]
        raise Finding(
            case,
            f"is another config after dump and reload (keys {', '.join(keys)})",
            plain,
        )
    if "model" in config:
        with torch.device("meta"):
            try:
                build("models", config.model.to_dict(), case)
            except CheckpointError as error:
                raise LeftOut(str(error)) from error  # valid, but it starts from weights that are not here
            except (FFPlugError, TypeError, ValueError, KeyError) as error:
                raise subject.explain(case, "its model does not build:", error) from error


# ---------------------------------------------------------------------------------------------------------------
# Models.


def _batch(subject: Subject, name: str, size: int = 2) -> tuple[nn.Module, dict[str, Any]]:
    """A model and a fresh batch of its own."""
    model = subject.model(name)
    if not hasattr(model, "example_batch"):
        raise Finding(
            subject.where(model),
            "has no example_batch(batch_size)",
            "give what a data loader would: dict(inputs=[...], data_samples=[...]), small and seeded",
        )
    return model, model.example_batch(size)


def _predict(model: nn.Module, batch: Mapping[str, Any], forward: Callable | None = None) -> list[dict[str, Tensor]]:
    """The ``pred_`` fields of each sample."""
    with torch.no_grad():
        data = model.data_preprocessor(copy.deepcopy(dict(batch)), False)
        samples = (model if forward is None else forward)(**data, mode="predict")
    # A sample's keys are a set: sorted, so that the same fault is told in the same words each time.
    return [{key: sample.get(key) for key in sorted(sample.keys()) if key.startswith("pred_")} for sample in samples]


def _loss(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    data = model.data_preprocessor(copy.deepcopy(dict(batch)), True)
    return model(**data, mode="loss")


@check("losses are finite, and every trainable parameter gets a gradient", _models)
def gradients(subject: Subject, case: str) -> None:
    """One step of training on the example batch."""
    model, batch = _batch(subject, case)
    model.train()
    try:
        torch.manual_seed(0)
        losses = _loss(model, batch)
        terms = {key: value for key, value in losses.items() if "loss" in key}
        if not terms:
            found = ", ".join(losses) or "nothing"
            raise Finding(case, f'mode="loss" gives {found}', "name at least one term so that it holds the word 'loss'")
        for key, value in terms.items():
            if not bool(torch.as_tensor(value).isfinite().all()):
                raise Finding(case, f"{key} is {value}", "look for a division by zero, a logarithm or a root at zero")
        model.parse_losses(losses)[0].backward()
        trainable = {name: value for name, value in model.named_parameters() if value.requires_grad}
        without = [name for name, value in trainable.items() if value.grad is None]
        if without:
            raise Finding(
                case,
                f"{len(without)} of {len(trainable)} trainable parameters get no gradient: {', '.join(without[:12])}",
                "leave out what the loss does not reach, or set requires_grad=False: several processes stop at it",
            )
        broken = [name for name, value in trainable.items() if not bool(value.grad.isfinite().all())]
        if broken:
            raise Finding(
                case, f"the gradient of {', '.join(broken[:12])} is not finite", "look for a root or norm at zero"
            )
    finally:
        model.zero_grad()
        model.eval()


@check("predictions have the promised shapes, types and ranges", _models)
def predictions(subject: Subject, case: str) -> None:
    """What ``mode="predict"`` puts into the samples, against the sample's FIELDS and the ground truth beside it."""
    model, batch = _batch(subject, case)
    results = _predict(model, batch)
    if len(results) != len(batch["data_samples"]):
        raise Finding(case, f"{len(results)} predictions for {len(batch['data_samples'])} samples", "give one for each")
    for sample, result in zip(batch["data_samples"], results, strict=True):
        if not result:
            raise Finding(case, 'mode="predict" sets no field pred_...', "set what it predicts in each sample")
        truth = {key: sample.get(key) for key in sample.keys()}  # noqa: SIM118
        complaints = broken_promises({**truth, **result}, getattr(sample, "FIELDS", {}))
        for key, value in result.items():
            true = truth.get(key.replace("pred_", "gt_", 1))
            if true is not None and true.shape != value.shape:
                complaints.append(f"{key} is {tuple(value.shape)}, the ground truth beside it {tuple(true.shape)}")
        if complaints:
            raise Finding(case, "; ".join(complaints), "give predictions without padding, in the sample's units")


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, or 0 where it is within 1e-3 of the largest value: sums may run in another order."""
    if not expected.numel():
        return 0.0
    found, expected = found.double(), expected.double()
    error = float((found - expected).abs().max())
    return error if error > 1e-3 * max(1.0, float(expected.abs().max())) else 0.0


@check("a batch gives what its samples give one by one", _models)
def batches(subject: Subject, case: str) -> None:
    """Predictions in evaluation mode."""
    model, batch = _batch(subject, case)
    together = _predict(model, batch)
    for index, expected in enumerate(together):
        single = {key: values[index : index + 1] for key, values in batch.items()}
        alone = _predict(model, single)[0]
        for key, value in expected.items():
            error = _difference(alone[key], value)
            if error:
                raise Finding(
                    case,
                    f"{key} of sample {index} differs by {error:.3g} between the batch and the sample alone",
                    "look for a mean, norm or attention over the batch dimension, or for batch norm in training mode",
                )


@check("weights survive a round trip through safetensors", _models)
def weights(subject: Subject, case: str) -> None:
    """Save, change every tensor, load, compare; no two names may share memory."""
    model = subject.model(case)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    target = subject.folder / f"{case}.safetensors"
    try:
        save_file(state, target)
    except RuntimeError as error:
        raise subject.explain(
            case,
            "its state dict can't be saved:",
            error,
            "keep a shared tensor under one name (clone it, or tie it in forward)",
        ) from error
    expected = {key: value.clone() for key, value in state.items()}
    with torch.no_grad():
        for value in model.state_dict().values():
            value.zero_()
    model.load_state_dict(load_file(target))
    target.unlink()
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value, expected[key])]
    if changed:
        raise Finding(
            case, f"{', '.join(changed[:8])} differ after saving and loading", "look at load_state_dict's hooks"
        )


@check("torch.compile gives the same predictions", _models)
def compiled(subject: Subject, case: str) -> None:
    """Dynamo and AOTAutograd on the forward; no code is generated, so it needs no compiler."""
    model, batch = _batch(subject, case, 1)
    expected = _predict(model, batch)[0]
    torch._dynamo.reset()
    found = _predict(model, batch, torch.compile(model, backend="aot_eager"))[0]
    torch._dynamo.reset()
    for key, value in expected.items():
        error = _difference(found[key], value)
        if error:
            raise Finding(
                case,
                f"{key} differs by {error:.3g} under torch.compile",
                "look for state that a forward pass changes, and for tensors turned into Python numbers",
            )


@check("it runs in bfloat16 on the CPU", _models)
def bfloat16(subject: Subject, case: str) -> None:
    """Prediction under autocast."""
    model, batch = _batch(subject, case, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = _predict(model, batch)[0]
    for key, value in result.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise Finding(
                case,
                f"{key} holds NaN or infinity under bfloat16 autocast",
                "compute norms and exponentials in float32",
            )


# ---------------------------------------------------------------------------------------------------------------
# Data sets.


def _write_examples(subject: Subject, config: Any) -> None:
    """Write the data that an example config asks for, below the present folder."""
    if isinstance(config, Mapping):
        root, name = config.get("data_root"), config.get("type")
        if isinstance(root, str) and isinstance(name, str):
            _write_example(subject, name, Path(root))
        for value in config.values():
            _write_examples(subject, value)
    elif isinstance(config, list):
        for value in config:
            _write_examples(subject, value)


def _write_example(subject: Subject, name: str, root: Path) -> None:
    from ffplug.registry import DATASETS

    cls = DATASETS.get(name)
    if root.is_absolute() or ".." in root.parts:
        raise Finding(
            name, f"its Example has data_root={str(root)!r}", "give a path below the present folder, such as data/x"
        )
    if not callable(getattr(cls, "write_example", None)):
        raise Finding(
            subject.where(cls),
            "has no write_example(folder)",
            "give it a class method that writes a small procedural set in its own layout",
        )
    if not root.exists():
        cls.write_example(root)


@check(
    "data sets give their declared fields, types and ranges, also from worker processes",
    lambda subject: subject.components("datasets"),
)
def datasets(subject: Subject, case: str) -> None:
    """Items of a small procedural set in the data set's own layout, here and from a worker that starts from nothing."""
    config = subject.example(case)
    with in_folder(subject.folder):
        _write_examples(subject, config)
        try:
            dataset = build("datasets", copy.deepcopy(config), case)
        except Exception as error:
            raise LeftOut("it does not build; see the check `types`") from error
        if len(dataset) == 0:
            raise Finding(case, "its example set holds no sample", "let write_example write two or more")
        item = dataset[0]
        _check_item(case, item)
        try:
            pickle.dumps(dataset)
        except Exception as error:
            raise subject.explain(
                case, "can't be sent to worker processes:", error, "keep no open files, locks or lambdas in it"
            ) from error
        loader = torch.utils.data.DataLoader(
            torch.utils.data.Subset(dataset, [0]),
            batch_size=None,
            num_workers=1,
            multiprocessing_context=fresh_processes(),
        )
        other = next(iter(loader))
    for key, value in _tensors(item).items():
        found = _tensors(other).get(key)
        if found is None or not torch.equal(torch.nan_to_num(value), torch.nan_to_num(found)):
            raise Finding(
                case,
                f"{key} of sample 0 differs in a worker process",
                "let all that is random follow from the index (ffplug.datasets.seeding), and open files when reading",
            )


def _tensors(item: Mapping[str, Any]) -> dict[str, Tensor]:
    sample = item.get("data_samples")
    fields = {key: sample.get(key) for key in sample.keys()} if hasattr(sample, "keys") else {}  # noqa: SIM118
    values = {**{key: value for key, value in item.items() if key != "data_samples"}, **fields}
    return {key: value for key, value in values.items() if isinstance(value, Tensor)}


def _check_item(case: str, item: Any) -> None:
    if not isinstance(item, Mapping) or "inputs" not in item or "data_samples" not in item:
        found = ", ".join(item) if isinstance(item, Mapping) else type(item).__name__
        raise Finding(
            case,
            f"an item is {found}",
            "end its default pipeline with a Pack transform: dict(inputs=..., data_samples=...)",
        )
    fields = getattr(item["data_samples"], "FIELDS", None)
    if fields is None:
        raise Finding(
            case,
            f"{type(item['data_samples']).__name__} declares no FIELDS",
            "say what each of its tensors promises (ffplug.structures.Field), or use the core's sample",
        )
    tensors = _tensors(item)
    unknown = sorted(set(tensors) - set(fields))
    complaints = broken_promises(tensors, fields) + [f"{name} is not among the declared FIELDS" for name in unknown]
    if complaints:
        raise Finding(case, "; ".join(complaints), "mend the reader, or the declaration where that is wrong")


# ---------------------------------------------------------------------------------------------------------------
# Ops.


@check("every op keeps the contract on every backend of this machine", _ops)
def ops(subject: Subject, case: str) -> None:
    """Values, gradients, gradcheck, half precision, opcheck, compile and determinism on the op's example."""
    from ffplug.testing.ops import OpConformance

    kind, name, backend = case.split(":")
    cls = subject.component(f"{kind}:{name}")
    if not _is_op(cls):
        raise Finding(subject.where(cls), "is no ffplug.ops.Op", "derive it from Op and register it by @register_op")
    op = cls()
    if not (type(op).__doc__ or "").strip():
        raise Finding(subject.where(op), "has no docstring", "say what it computes, with shapes and units")
    if type(op).example is Op.example:
        raise Finding(
            subject.where(op), "has no example(make)", "return small arguments with odd sizes: (make(2, 3, 5, 7), ...)"
        )
    if op.schema is None:
        op(*op.example(_maker(torch.float32)))
        return
    test = type("Example", (OpConformance,), {"op": op})()
    example = op.example
    steps: list[tuple[str, Callable[[], None]]] = [
        (f"{step} in {str(dtype).removeprefix('torch.')}", lambda run=run, dtype=dtype: run(backend, example, dtype))
        for step, run in (("values", test.test_values), ("gradients", test.test_gradients))
        for dtype in (torch.float32, torch.float64)
    ]
    steps += [
        ("half precision", lambda: test.test_half(backend, torch.bfloat16)),
        ("gradient against finite differences", lambda: test.test_gradcheck(backend)),
        ("torch.library.opcheck", lambda: test.test_opcheck(backend)),
        ("torch.compile", lambda: test.test_compile(backend)),
        ("equal bits in deterministic mode", lambda: test.test_deterministic(backend)),
    ]
    for step, run in steps:
        try:
            run()
        except Exception as error:
            raise subject.explain(
                f"{name} on {backend}",
                f"fails the step '{step}':",
                error,
                "the reference is the definition: make the backend agree with it; OpConformance in a test of your own "
                "takes more cases and shows the traceback",
            ) from error


def _maker(dtype: torch.dtype) -> Any:
    from ffplug.testing.ops import Maker

    return Maker(dtype)


# ---------------------------------------------------------------------------------------------------------------
# The distribution.


def _extras(subject: Subject) -> dict[str, list[str]]:
    """Requirements by extra: of the installed distribution, or of pyproject.toml in the source tree."""
    if subject.plugin.version == "not installed":
        if subject.source is None:
            return {}
        project = tomllib.loads((subject.source / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
        return {name: list(needs) for name, needs in project.get("optional-dependencies", {}).items()}
    distribution = importlib.metadata.distribution(subject.plugin.name)
    found: dict[str, list[str]] = {name: [] for name in distribution.metadata.get_all("Provides-Extra") or ()}
    for requirement in distribution.requires or ():
        extra = re.search(r"""extra\s*==\s*["']([^"']+)["']""", requirement)
        if extra and extra[1] in found:
            found[extra[1]].append(requirement)
    return found


def _imported(folder: Path) -> set[str]:
    """Top-level names that a package's modules import, anywhere in them."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.partition(".")[0])
    return names


@functools.cache
def _modules_of_distributions() -> dict[str, set[str]]:
    """The modules that each installed distribution brings, by its name as pip writes it."""
    provides: dict[str, set[str]] = {}
    for module, distributions in importlib.metadata.packages_distributions().items():
        for distribution in distributions:
            provides.setdefault(re.sub(r"[-_.]+", "-", distribution).lower(), set()).add(module)
    return provides


def _optional_modules(subject: Subject) -> dict[str, set[str]]:
    """By extra, the modules that it brings and the plugin imports."""
    extras = _extras(subject)
    if not extras:
        return {}
    provides = _modules_of_distributions()
    imported = _imported(subject.plugin.folder)
    modules = {
        extra: {
            module
            for requirement in needs
            for module in provides.get(re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower(), ())
        }
        & imported
        for extra, needs in extras.items()
    }
    return {extra: names for extra, names in modules.items() if names}


@check(
    "a missing optional dependency gives the line that installs it", lambda subject: list(_optional_modules(subject))
)
def optional_dependencies(subject: Subject, case: str) -> None:
    """Import and build everything in a process where the extra's modules can't be imported."""
    modules = sorted(_optional_modules(subject)[case])
    command = [sys.executable, "-m", "ffplug.testing.without", subject.package, case, *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        what = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Finding(
            f"{subject.plugin.name}[{case}]",
            f"without {', '.join(modules)}: {what}",
            f"import it where it is used, and raise PluginError with `pip install '{subject.plugin.name}[{case}]'`",
        )


@check(
    "the wheel is pure Python, holds configs, manifest and csrc, and no tests", lambda subject: [subject.plugin.name]
)
def wheel(subject: Subject, case: str) -> None:
    """Build the wheel from a copy of the source tree, and compare it with the package."""
    if subject.source is None:
        names = [str(path) for path in importlib.metadata.files(case) or ()]
        _check_wheel(subject, case, names)
        return
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "source"
        copied.mkdir()
        for path in subject.source.iterdir():
            if path.is_file() and path.stat().st_size < 1_000_000:
                shutil.copy(path, copied)
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(subject.plugin.folder, copied / subject.package, ignore=ignore)
        if (subject.source / "tests").is_dir():
            (copied / "tests").mkdir()
            (copied / "tests" / "test_something.py").touch()
        backend = "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))"
        done = subprocess.run(
            [sys.executable, "-c", backend, folder], cwd=copied, capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            if "No module named 'setuptools'" in last:
                raise LeftOut("setuptools is not installed: pip install 'setuptools>=77'")
            raise Finding(
                f"{subject.source}/pyproject.toml", f"the wheel does not build: {last}", "see `python -m build`"
            )
        built = Path(folder) / done.stdout.splitlines()[-1]
        if not built.name.endswith("-py3-none-any.whl"):
            raise Finding(
                case, f"its wheel is {built.name}", "build no extension: ops compile their kernels at first use"
            )
        with zipfile.ZipFile(built) as archive:
            _check_wheel(subject, case, archive.namelist())


def _check_wheel(subject: Subject, case: str, names: Iterable[str]) -> None:
    names = list(names)
    folder = subject.plugin.folder
    wanted = {
        f"{subject.package}/{path.relative_to(folder).as_posix()}"
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    missing = sorted(wanted - set(names))
    if missing:
        raise Finding(
            f"{case}: pyproject.toml",
            f"the wheel lacks {', '.join(missing[:8])}" + (f" and {len(missing) - 8} more" if len(missing) > 8 else ""),
            f'list them in [tool.setuptools.package-data] {subject.package} = ["ffplug.toml", "ops/csrc/*"], '
            "and give every folder of modules an __init__.py",
        )
    stray = [name for name in names if _is_test(name)]
    if stray:
        raise Finding(
            f"{case}: pyproject.toml",
            f"the wheel holds tests: {', '.join(stray[:8])}",
            f'set [tool.setuptools.packages.find] include = ["{subject.package}*"]',
        )


def _is_test(name: str) -> bool:
    file = name.rpartition("/")[2]
    return name.startswith("tests/") or fnmatch.fnmatch(file, "test_*.py") or file == "conftest.py"
