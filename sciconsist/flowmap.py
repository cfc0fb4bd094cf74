"""The one object: a two-time flow map X_{s,t} over any geometry.

The diagonal s = t is the velocity (flow matching, diffusion); X_{t,0} is a consistency function; X_{1,0}
generates in one step. Times are per sample and per field, so a field can be held (s = t = 0: given).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sciconsist.geometry import Euclidean, Geometry, Product, geometry_of
from sciconsist.parametrisations import Parametrisation
from sciconsist.paths import Linear, Path
from sciconsist.state import Mask, State, Times, batch_size, field_of, leaves


class FlowMap(nn.Module):
    """A network and the algebra that makes it a flow map.

    `net(x, s, t, condition, mask)` returns F in the state's own structure (logits for a Simplex); times reach
    it as `[B]` float32 tensors, or a dict of them. `parametrisation` and `data_std` are one value or one per
    field. A network of one tensor that takes only `(x, s, t)` is fine when no condition and no mask are
    given.
    """

    def __init__(
        self,
        net: nn.Module,
        path: Path | None = None,
        geometry: Geometry | Product | None = None,
        parametrisation: str | Mapping[str, str] | None = None,
        data_std: float | Mapping[str, float] = 1.0,
    ) -> None:
        super().__init__()
        self.net = net
        self.path: Path = path if path is not None else Linear()
        self.geometry: Geometry | Product = geometry if geometry is not None else Euclidean()
        self.rows: dict[str | None, Parametrisation] = {}
        names = list(self.geometry.fields) if isinstance(self.geometry, Product) else [None]
        for name in names:
            part = geometry_of(self.geometry, name)
            default = DEFAULT[type(part).__name__]
            kind = default if parametrisation is None else field_of(parametrisation, name or "")
            self.rows[name] = Parametrisation(kind, self.path, part, float(field_of(data_std, name or "")))
        self.card: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.domain: Any = None

    def raw(self, x: State, s: Times, t: Times, condition: Any = None, mask: Mask = None) -> State:
        """The network's own output at times s -> t: logits for a Simplex, F elsewhere."""
        s, t = self.times(x, s), self.times(x, t)
        scaled = self.each(lambda row, x_, s_: row.scale_input(x_, s_), x, s)
        if condition is None and mask is None:
            return self.net(scaled, s, t)
        return self.net(scaled, s, t, condition, mask)

    def f(self, x: State, s: Times, t: Times, condition: Any = None, mask: Mask = None) -> State:
        """F(x, s, t) on its geometry: the endpoint's average for endpoint rows, a vector for the others."""
        return self.each(lambda row, r, m: row.output(r, m), self.raw(x, s, t, condition, mask), mask)

    def apply_f(self, x: State, f: State, s: Times, t: Times, mask: Mask = None) -> State:
        """X_{s,t}(x) from an F that is known already."""
        s, t = self.times(x, s), self.times(x, t)
        return self.each(lambda row, *a: row.jump(*a), x, f, s, t, mask)

    def forward(self, x: State, s: Times, t: Times, condition: Any = None, mask: Mask = None) -> State:
        """X_{s,t}(x): carry a state from time s to time t."""
        return self.apply_f(x, self.f(x, s, t, condition, mask), s, t, mask)

    def velocity(self, x: State, t: Times, condition: Any = None, mask: Mask = None) -> State:
        """The instantaneous velocity, the map's diagonal."""
        f = self.f(x, t, t, condition, mask)
        return self.each(lambda row, *a: row.velocity(*a), x, f, self.times(x, t), mask)

    def average_velocity(self, x: State, s: Times, t: Times, condition: Any = None, mask: Mask = None) -> State:
        """u = log_x(X_{s,t}(x)) / (t - s), and the velocity where s = t."""
        f = self.f(x, s, t, condition, mask)
        return self.average_of(x, f, s, t, mask)

    def average_of(self, x: State, f: State, s: Times, t: Times, mask: Mask = None) -> State:
        s, t = self.times(x, s), self.times(x, t)
        return self.each(lambda row, *a: row.average(*a), x, f, s, t, mask)

    def times(self, x: State, t: Times | float) -> Times:
        """Times as `[B]` tensors of at least float32; a number or one tensor may serve every field.

        A number takes the state's precision: 0.1 in float32 is not 0.1 in float64.
        """
        size, like = batch_size(x), leaves(x)[0]
        device, exact = like.device, torch.float64 if like.dtype == torch.float64 else torch.float32

        def one(value: Any) -> Tensor:
            tensor = torch.as_tensor(value, device=device, dtype=None if isinstance(value, Tensor) else exact)
            if tensor.dtype not in (torch.float32, torch.float64):
                tensor = tensor.float()
            return tensor.expand(size) if tensor.dim() == 0 else tensor

        if isinstance(x, Mapping):
            return {name: one(field_of(t, name)) for name in x}
        return one(t)

    def each(self, function: Any, state: Any, *others: Any) -> Any:
        """`function(row, tensor, *others)` for every field, with that field's parametrisation."""
        if isinstance(state, Mapping):
            return {n: function(self.rows[n], x, *(field_of(o, n) for o in others)) for n, x in state.items()}
        return function(self.rows[None], state, *others)


DEFAULT = {"Euclidean": "preconditioned", "Simplex": "endpoint", "Torus": "velocity"}
