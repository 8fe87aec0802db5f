"""Mixed precision on every device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper

from ffplug.errors import ConfigError
from ffplug.registry import OPTIM_WRAPPERS

DTYPES = {
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float32": torch.float32,
}


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(OptimWrapper):
    """Train under autocast: float16 with loss scaling or bfloat16 without, on a GPU; bfloat16 if asked, on the CPU.

    MMEngine's own refuses the CPU, and scales bfloat16 losses, which need none.

    Args:
        dtype: ``'float16'`` (``'fp16'``), ``'bfloat16'`` (``'bf16'``), or None for float16 on a GPU and float32 on the
            CPU, where few machines gain by bfloat16 and the others lose a lot.
        init_scale: First scale of a float16 loss; it then adapts itself.
        **kwargs: Those of ``mmengine.optim.OptimWrapper``: optimizer, accumulative_counts, clip_grad.

    Raises:
        ConfigError: Another dtype, float16 on the CPU, or bfloat16 on a GPU without it.
    """

    def __init__(self, dtype: str | None = None, init_scale: float = 2.0**16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.device_type = torch.device(get_device()).type
        if dtype is None:
            dtype = "float32" if self.device_type == "cpu" else "float16"
        if dtype not in DTYPES:
            raise ConfigError(f"optim_wrapper.dtype: expected one of {', '.join(DTYPES)}, not {dtype!r}")
        self.dtype = DTYPES[dtype]
        if self.dtype is torch.float16 and self.device_type == "cpu":
            raise ConfigError("optim_wrapper.dtype: float16 needs a GPU; use dtype='bfloat16' on the CPU")
        if self.dtype is torch.bfloat16 and self.device_type == "cuda" and not torch.cuda.is_bf16_supported():
            raise ConfigError("optim_wrapper.dtype: this GPU has no bfloat16; use dtype='float16'")
        self.loss_scaler = torch.amp.GradScaler(
            self.device_type, init_scale=init_scale, enabled=self.dtype is torch.float16
        )

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        """Backpropagate the (scaled) loss."""
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs: Any) -> None:
        """Unscale and clip the gradients, and update unless a float16 gradient overflowed."""
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()

    def state_dict(self) -> dict:
        """Return the optimiser's state and the scaler's."""
        return {**super().state_dict(), "loss_scaler": self.loss_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        """Load what :meth:`state_dict` returned, here or in a plain wrapper, which has no scaler."""
        state_dict = dict(state_dict)
        scaler = state_dict.pop("loss_scaler", None)
        if scaler and self.loss_scaler.is_enabled():
            self.loss_scaler.load_state_dict(scaler)
        super().load_state_dict(state_dict)

    @contextmanager
    def optim_context(self, model: torch.nn.Module) -> Iterator[None]:
        """Run the forward pass under autocast, without synchronising gradients that are only accumulated."""
        mixed = self.dtype is not torch.float32
        with (
            super().optim_context(model),
            torch.autocast(self.device_type, self.dtype if mixed else None, enabled=mixed),
        ):
            yield
