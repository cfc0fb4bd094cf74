"""Post-training int8 of linear layers: a quarter of the weights' memory, for a measured loss of accuracy."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from sciconsist.flowmap import FlowMap


class Int8Linear(nn.Module):
    """A linear layer whose weight is int8 with one scale an output channel; it computes in the input's dtype."""

    weight: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        value = layer.weight.detach()
        scale = value.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
        self.register_buffer("weight", torch.round(value / scale).to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale.to(x.dtype), self.bias)


def quantise(model: FlowMap, smallest: int = 16) -> FlowMap:
    """A copy for sampling, its linear layers of `smallest` inputs or more in int8. The model itself stays as it is."""
    twin = copy.deepcopy(model).eval()
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child.in_features >= smallest:
                setattr(parent, name, Int8Linear(child))
    return twin


def megabytes(module: nn.Module) -> float:
    """Memory of the parameters and buffers."""
    return sum(v.numel() * v.element_size() for v in (*module.parameters(), *module.buffers())) / 1e6
