"""A state is one tensor, or a dict of named tensors (one per field) that shares its batch dimension.

Everything that must work on both goes through `map_fields`: times, masks and parameters may be one
value for all fields or a dict with one value per field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

State = Tensor | dict[str, Tensor]
Times = Tensor | float | dict[str, Tensor]
Mask = Tensor | dict[str, Tensor] | None


def field_of(value: Any, name: str) -> Any:
    """The part of `value` that belongs to field `name`; a plain value belongs to every field."""
    return value[name] if isinstance(value, Mapping) else value


def map_fields(function: Callable[..., Any], state: Any, *others: Any) -> Any:
    """Apply `function(tensor, *others)` to a tensor, or to every field of a dict."""
    if not isinstance(state, Mapping):
        return function(state, *others)
    return {name: function(x, *(field_of(o, name) for o in others)) for name, x in state.items()}


def leaves(state: Any) -> list[Tensor]:
    """The tensors of a state, in field order."""
    return list(state.values()) if isinstance(state, Mapping) else [state]


def batch_size(state: State) -> int:
    return leaves(state)[0].shape[0]


def expand(value: Tensor, like: Tensor) -> Tensor:
    """Give `value` `[B]` (or `[B, N]`, or a scalar) trailing ones until it broadcasts against `like`."""
    return value.reshape(value.shape + (1,) * (like.dim() - value.dim()))


def apply_mask(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zero what is not real. `mask` is boolean over the leading dimensions of `x`."""
    return x if mask is None else x * expand(mask, x).to(x.dtype)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over everything but the batch, counting real entries only: `[B, ...] -> [B]`."""
    if values.dim() == 1:
        return values
    if mask is None:
        return values.flatten(1).mean(1)
    weight = expand(mask, values).to(values.dtype).expand_as(values)
    return (values * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp_min(1)


def detach(state: State) -> State:
    return map_fields(torch.Tensor.detach, state)
