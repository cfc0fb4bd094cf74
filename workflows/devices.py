"""Running a model's network on another device, while states and decoding stay on the CPU."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from sciconsist.domain import moved
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap


class Remote(nn.Module):
    """A network on its device that takes and gives CPU tensors."""

    def __init__(self, net: nn.Module, device: str) -> None:
        super().__init__()
        self.net, self.device = net, device

    def forward(self, *arguments: Any) -> dict[str, Tensor]:
        out = self.net(*(moved(a, self.device) for a in arguments))
        return {name: value.cpu() for name, value in out.items()}


def pick_device(device: str | None) -> str:
    """cpu or cuda; the best there is for None. Raises UserError when it is not there."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise UserError(f"device {device!r}: expected cpu or cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {device!r}: no CUDA device here (see: sciconsist doctor); expected cpu")
    return device


def on_device(model: FlowMap, device: str | None) -> FlowMap:
    """The model itself on the CPU, or a copy that shares nothing with it and runs its network elsewhere."""
    chosen = pick_device(device)
    if chosen == "cpu":
        return model
    twin = copy.copy(model)
    twin._modules = dict(model._modules)
    twin.net = Remote(copy.deepcopy(model.net).to(chosen), chosen)
    return twin
