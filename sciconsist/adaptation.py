"""Adapting a trained model to little new data: low-rank updates (LoRA), and a pull to the old weights (EWC)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sciconsist.losses import LossParts, flow_map_loss


class LowRank(nn.Module):
    """A frozen linear layer plus (alpha / rank) x A^T B^T (Hu et al. 2022, eq. 3); at birth it is the layer."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        self.base, self.scale = base.requires_grad_(False), alpha / rank
        kind = base.weight.dtype
        start = torch.randn(rank, base.in_features, generator=generator, dtype=kind)
        self.a = nn.Parameter(start / base.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(base.out_features, rank, dtype=kind))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + self.scale * (x @ self.a.T) @ self.b.T
        return out


def add_lora(module: nn.Module, rank: int, generator: torch.Generator, *, alpha: float | None = None) -> nn.Module:
    """Freeze a module and give each of its linear layers that is no smaller than `rank` an update, in place.

    The parameters left to train are the updates'. Layers that others read the weights of (attention's own
    output projection) are left alone.
    """
    if isinstance(module, LowRank):
        return module
    module.requires_grad_(False)
    _each_linear(module, lambda layer: LowRank(layer, rank, alpha or rank, generator) if fits(layer, rank) else layer)
    return module


def fits(layer: nn.Linear, rank: int) -> bool:
    return type(layer) is nn.Linear and min(layer.in_features, layer.out_features) >= rank


def merge_lora(module: nn.Module) -> nn.Module:
    """The updates added into the layers, in place: an ordinary module with the names it had."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LowRank):
                with torch.no_grad():
                    child.base.weight += child.scale * child.b @ child.a
                setattr(parent, name, child.base)
    return module.requires_grad_(True)


def _each_linear(module: nn.Module, change: Callable[[nn.Linear], nn.Module]) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, change(child))
        else:
            _each_linear(child, change)


def fisher(module: nn.Module, losses: Iterable[Tensor]) -> dict[str, Tensor]:
    """Mean squared gradient of each parameter over `losses`, one of one batch (or sample) each: the diagonal Fisher."""
    named = {n: p for n, p in module.named_parameters() if p.requires_grad}
    total, count = {n: torch.zeros_like(p) for n, p in named.items()}, 0
    for loss in losses:
        for n, g in zip(named, torch.autograd.grad(loss, list(named.values()), allow_unused=True)):
            if g is not None:
                total[n] += g.square()
        count += 1
    if count == 0:
        raise ValueError("fisher: no losses")
    return {n: v / count for n, v in total.items()}


def ewc(
    anchor: Mapping[str, Tensor],
    importance: Mapping[str, Tensor],
    strength: float,
    loss: Callable[..., LossParts] = flow_map_loss,
) -> Callable[..., LossParts]:
    """A loss for `fit`, with strength / 2 sum F (theta - theta_old)^2 added (Kirkpatrick et al. 2017, eq. 3).

    `anchor` are the old weights (a state_dict), `importance` their `fisher`.
    """
    fixed = {n: anchor[n].detach().clone() for n in importance}

    def penalised(model: nn.Module, *args: Any, **kwargs: Any) -> LossParts:
        parts = loss(model, *args, **kwargs)
        named = dict(model.named_parameters())
        pull = sum((importance[n] * (named[n] - old).square()).sum() for n, old in fixed.items())
        penalty = 0.5 * strength * torch.as_tensor(pull)
        return LossParts(parts.total + penalty, parts.per_sample, {**parts.parts, "ewc": penalty.detach()})

    return penalised
