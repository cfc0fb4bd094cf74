"""What a domain gives the core: a geometry, a network, batches, and the way back to objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Geometry, Product
from sciconsist.state import Mask, State, Times, map_fields


@dataclass
class Batch:
    """What one training step sees; a domain that pairs noise with data, or draws times, fills those in."""

    x0: State
    noise: State | None = None
    times: Times | None = None
    condition: Any = None
    mask: Mask = None

    def to(self, device: str | torch.device) -> Batch:
        return Batch(**{f.name: moved(getattr(self, f.name), device) for f in fields(self)})


def moved(value: Any, device: str | torch.device) -> Any:
    """A tensor, or a dict or named tuple with tensors in it, on a device; anything else as it is."""
    if isinstance(value, dict):
        return {name: moved(part, device) for name, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a Split of times
        return type(value)(*(moved(part, device) for part in value))
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


class Data(Protocol):
    """A training set: `batch` makes a step's batch, with every random choice from `generator`."""

    def __len__(self) -> int: ...
    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch: ...


@runtime_checkable
class Domain(Protocol):
    """The adapter between objects and states (ARCHITECTURE, 4).

    A domain may also have `template(request) -> Batch`, the empty batch that a request (sizes, a composition,
    coarse fields) stands for: with it `sciconsist.sample` takes the request in place of a shape.
    """

    geometry: Geometry | Product

    def collate(self, items: Sequence[Any]) -> Batch:
        """Objects to state, condition and mask."""

    def model(self) -> FlowMap:
        """A fresh FlowMap around `network`, with `.domain` and `.config` set."""

    def network(self, size: Any) -> nn.Module:
        """F(x, s, t, condition, mask)."""

    def decode(self, batch: Batch) -> list[Any]:
        """State to objects: RDKit molecules, pymatgen structures, xarray datasets."""

    def metrics(self, samples: Sequence[Any], reference: Sequence[Any]) -> dict[str, float]:
        """What the samples score against real data."""


@dataclass
class States:
    """A training set in memory: one state `[M, ...]`, perhaps with a condition and mask as long."""

    x0: State
    condition: Any = None
    mask: Mask = None

    def __len__(self) -> int:
        return len(next(iter(self.x0.values())) if isinstance(self.x0, dict) else self.x0)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        def pick(value: Any) -> Any:
            return (
                None if value is None else map_fields(lambda x: None if x is None else x[indices.to(x.device)], value)
            )

        return Batch(pick(self.x0), condition=pick(self.condition), mask=pick(self.mask))
