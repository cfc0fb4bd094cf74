"""What every domain passes, ours and yours: a test class to inherit. Needs pytest (the `test` extra).

    class TestMoleculeDomain(DomainContract):
        def make(self): return from_config({...})
        def items(self): return [ethanol, pyridine, glycine]
        symmetries = {"turned": turn, "atoms permuted": permute}
        def bad_items(self): return {"an element it does not know": silicon}

Every test draws from generators of its own. The network's weights are drawn too, the zero-initialised ones
with them: a branch that is silent at birth must keep the rules as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from sciconsist.domain import Batch, Domain
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Torus, geometry_of
from sciconsist.losses import flow_map_loss
from sciconsist.random import draw_prior, stream, streams
from sciconsist.recipes import RECIPES
from sciconsist.sampling import sample
from sciconsist.state import State, Times, batch_size, leaves, map_fields
from sciconsist.targets import jvp, on_path

Symmetry = Callable[[Batch, torch.Generator], Batch]
DTYPES = (torch.float32, torch.float64)


class DomainContract:
    """Fill in `make` and `items`, and what else the domain has; every inherited test then applies.

    A symmetry is a function `(batch, generator) -> batch` that acts on state, condition and mask alike (turn,
    mirror, permute, translate); what the flow map makes of a turned state must be the turned result. The
    same draw must come from the same generator.
    """

    symmetries: ClassVar[Mapping[str, Symmetry]] = {}
    tolerance: ClassVar[Mapping[torch.dtype, float]] = {torch.float32: 2e-3, torch.float64: 1e-8}
    weight_scale: ClassVar[float] = 0.1  # standard deviation of the drawn weights
    forward_derivative: ClassVar[bool] = True  # whether the network serves the recipes with a JVP (lsd, meanflow, ...)

    # --- what a domain says about itself

    def make(self) -> Domain:
        """The domain, its network as small as will do."""
        raise NotImplementedError

    def items(self) -> Sequence[Any]:
        """Three real objects or more, of different sizes if it has sizes."""
        raise NotImplementedError

    def bad_items(self) -> Mapping[str, Any]:
        """Objects that `collate` must refuse, by what is wrong with them."""
        return {}

    def request(self) -> Any:
        """What `template` is asked for; None for a domain without `template`."""
        return None

    def same(self, item: Any, decoded: Any) -> bool:
        """Whether an object came back from its state."""
        raise NotImplementedError

    # --- tests

    def test_it_is_a_domain(self) -> None:
        domain = self.make()
        assert isinstance(domain, Domain)
        model = domain.model()
        assert isinstance(model, FlowMap) and model.domain is domain
        assert json.loads(json.dumps(model.config)) == model.config, "the config does not survive a JSON file"

    def test_a_batch_is_whole(self) -> None:
        domain, items = self.make(), self.items()
        batch = domain.collate(items)
        assert batch_size(batch.x0) == len(items) >= 3
        assert all(x.is_floating_point() and bool(x.isfinite().all()) for x in leaves(batch.x0))
        close(domain.geometry.project(batch.x0, batch.mask), batch.x0, domain, 1e-5)  # type: ignore[arg-type]

    def test_objects_come_back_from_their_states(self) -> None:
        domain, items = self.make(), self.items()
        decoded = domain.decode(domain.collate(items))
        assert len(decoded) == len(items)
        for item, found in zip(items, decoded):
            assert self.same(item, found), f"{item} came back as {found}"

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_symmetries(self, dtype: torch.dtype) -> None:
        domain, model, batch, s, t = self.prepared(dtype)
        out = with_state(batch, apply(model, batch, s, t))
        moved = max(float((a - b).abs().max()) for a, b in zip(leaves(out.x0), leaves(batch.x0)))
        assert moved > 1e-2, "the drawn network does nothing: the test would be empty"
        for name, act in self.symmetries.items():
            turned = act(batch, stream(0, name))
            changed = [not torch.equal(a, b) for a, b in zip(leaves(turned.x0), leaves(batch.x0))]
            assert any(changed), f"{name}: changes nothing"
            found, expected = apply(model, turned, s, t), act(out, stream(0, name)).x0
            close(found, expected, domain, self.tolerance[dtype], name)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_a_batch_gives_what_its_members_give_alone(self, dtype: torch.dtype) -> None:
        domain, model, batch, s, t = self.prepared(dtype)
        together = apply(model, batch, s, t)
        for k, item in enumerate(self.items()):
            alone = cast(domain.collate([item]), dtype)

            def cut(x: Tensor, like: Tensor, k: int = k) -> Tensor:
                return x[(slice(k, k + 1), *(slice(0, n) for n in like.shape[1:]))]

            single = with_state(alone, map_fields(cut, batch.x0, alone.x0))
            one_s, one_t = (map_fields(lambda v, k=k: v[k : k + 1], times) for times in (s, t))
            found = apply(model, single, one_s, one_t)
            close(found, map_fields(cut, together, alone.x0), domain, self.tolerance[dtype], f"item {k}")

    def test_given_fields_stand_still(self) -> None:
        """A field whose times are 0 is a condition: the map leaves it alone."""
        _, model, batch, s, t = self.prepared(torch.float64)
        if not isinstance(s, dict):
            pytest.skip("one field")
        for name in s:
            zero = torch.zeros_like(s[name])
            out = apply(model, batch, {**s, name: zero}, {**t, name: zero})  # type: ignore[dict-item]
            assert torch.allclose(out[name], batch.x0[name], atol=1e-12), name  # type: ignore[index]

    def test_the_map_has_a_forward_derivative(self) -> None:
        """What the recipes with a JVP differentiate, along state and times at once, against central differences."""
        if not self.forward_derivative:
            pytest.skip("the domain says that its network has none")
        domain, model, batch, s, t = self.prepared(torch.float64)
        drawn = draw_prior(domain.geometry, batch.x0, batch.mask, generator=stream(0, "direction"))
        v = domain.geometry.tangent(batch.x0, drawn, batch.mask)  # type: ignore[arg-type]
        ones = map_fields(torch.ones_like, s)

        def move(x: State, s: Times, t: Times) -> State:
            return model(x, s, t, batch.condition, batch.mask)

        def at(h: float) -> State:
            parts = ((batch.x0, v), (s, ones), (t, ones))
            with torch.no_grad():
                return move(*(map_fields(lambda a, b: a + h * b, a, b) for a, b in parts))

        _, rate = jvp(move, (batch.x0, s, t), (v, ones, ones))
        h = 1e-3  # times may reach a network in single precision
        slope = map_fields(lambda d: d / (2 * h), domain.geometry.log(at(-h), at(h)))  # type: ignore[arg-type]
        for found, expected in zip(leaves(rate), leaves(slope)):
            error = float((found - expected).detach().norm() / expected.norm().clamp_min(1e-12))
            assert error < 0.02, f"the derivative is off by {error:.1%}"

    @pytest.mark.parametrize("name", ["meanflow", "lsd"])
    def test_recipes_with_a_jvp_have_gradients(self, name: str) -> None:
        """A target by forward mode, and (lsd, lmd) the reverse through it: finite, and not nothing."""
        if not self.forward_derivative:
            pytest.skip("the domain says that its network has none")
        domain, model, batch, _, _ = self.prepared(torch.float32)
        gradients_of(model, domain, batch, name)

    def test_a_seed_gives_the_same_sample_and_another_seed_another(self) -> None:
        domain, model, batch, _, _ = self.prepared(torch.float32)
        request = self.request()
        if request is None:
            like = batch
        else:
            like = domain.template(request)  # type: ignore[attr-defined]
        indices = range(batch_size(like.x0))

        def draw(seed: int) -> State:
            generators = streams(seed, "prior", indices=indices)
            if request is not None:
                return sample(model, request, [1.0, 0.5, 0.0], generators)
            noise = draw_prior(domain.geometry, like.x0, like.mask, generator=generators)
            return apply(model, with_state(like, noise), 1.0, 0.0)

        first, again, other = draw(0), draw(0), draw(1)
        assert all(torch.equal(a, b) for a, b in zip(leaves(first), leaves(again)))
        assert any(not torch.equal(a, b) for a, b in zip(leaves(first), leaves(other)))
        assert all(bool(x.isfinite().all()) for x in leaves(first))
        decoded = domain.decode(with_state(like, first))
        assert len(decoded) == len(indices), "decode must give an object, or its reason, for every state"

    def test_it_learns(self) -> None:
        """Flow matching has finite gradients that reach the network, and a step along them lowers the loss."""
        domain = self.make()
        model = domain.model()
        batch = domain.collate(self.items())
        noise = draw_prior(domain.geometry, batch.x0, batch.mask, generator=stream(0, "noise"))

        def loss() -> Tensor:
            parts = flow_map_loss(
                model, RECIPES["fm"], batch.x0, noise, progress=0.0, generator=stream(0, "times"),
                condition=batch.condition, mask=batch.mask,
            )  # fmt: skip
            return parts.total

        before = loss()
        before.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        assert gradients and all(bool(g.isfinite().all()) for g in gradients.values())
        size = sum(float(g.square().sum()) for g in gradients.values())
        assert size > 0
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name in gradients:
                    p.sub_(gradients[name] * min(1e-3, 1e-3 / size**0.5))
            assert float(loss()) < float(before)

    def test_bad_items_are_refused_in_one_line(self) -> None:
        domain, good = self.make(), list(self.items())
        for name, bad in self.bad_items().items():
            with pytest.raises(ValueError) as caught:
                domain.collate([*good, bad])
            message = str(caught.value)
            assert message and "\n" not in message, f"{name}: {message}"

    def test_metrics_are_numbers(self) -> None:
        domain, items = self.make(), self.items()
        figures = domain.metrics(items, items)
        assert figures
        for name, value in figures.items():
            assert isinstance(name, str) and isinstance(value, int | float), name

    # --- help

    def prepared(self, dtype: torch.dtype) -> tuple[Domain, FlowMap, Batch, Times, Times]:
        """A domain, its model with drawn weights, noisy states of the items, and times s > t of every field."""
        domain = self.make()
        model = domain.model().to(dtype).eval()
        with torch.no_grad():
            for name, p in model.named_parameters():
                draw = torch.randn(p.shape, generator=stream(0, name), dtype=torch.float64)
                p.copy_((self.weight_scale * draw).to(dtype))
        batch = cast(domain.collate(self.items()), dtype)
        count = batch_size(batch.x0)
        clock = stream(0, "clock")

        def times(_: Tensor) -> tuple[Tensor, Tensor]:
            s, share = torch.rand(2, count, generator=clock, dtype=torch.float64)
            return 0.2 + 0.8 * s, (0.2 + 0.8 * s) * share

        pairs = map_fields(times, batch.x0)
        s, t = (map_fields(lambda p, k=k: p[k], pairs) for k in (0, 1))
        noise = draw_prior(domain.geometry, batch.x0, batch.mask, generator=stream(0, "noise"))
        return domain, model, with_state(batch, on_path(model, batch.x0, noise, s, batch.mask)), s, t


def gradients_of(model: FlowMap, domain: Domain, batch: Batch, name: str) -> None:
    """Asserts that the loss of a recipe and its gradient are finite, off the diagonal, and reach the network."""
    recipe = replace(RECIPES[name], times=replace(RECIPES[name].times, diagonal=0.0))
    noise = draw_prior(domain.geometry, batch.x0, batch.mask, generator=stream(0, "pairs"))
    loss = flow_map_loss(
        model, recipe, batch.x0, noise, progress=0.5, generator=stream(0, name), condition=batch.condition,
        mask=batch.mask,
    )  # fmt: skip
    loss.total.backward()
    found = [p.grad for p in model.parameters() if p.grad is not None]
    assert bool(loss.total.isfinite()) and all(bool(g.isfinite().all()) for g in found)
    assert sum(float(g.abs().sum()) for g in found) > 0


def apply(model: FlowMap, batch: Batch, s: Times, t: Times) -> State:
    with torch.no_grad():
        return model(batch.x0, s, t, batch.condition, batch.mask)


def with_state(batch: Batch, x: State) -> Batch:
    return Batch(x, condition=batch.condition, mask=batch.mask)


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Every floating tensor of a batch in one precision."""
    if isinstance(value, Batch):
        return Batch(cast(value.x0, dtype), condition=cast(value.condition, dtype), mask=value.mask)
    if isinstance(value, dict):
        return {name: cast(part, dtype) for name, part in value.items()}
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def close(found: State, expected: State, domain: Domain, tolerance: float, what: str = "") -> None:
    """Asserts that states agree to `tolerance` of a field's own size; on a torus modulo 1."""
    names: list[Any] = list(expected) if isinstance(expected, dict) else [None]
    for name, x, y in zip(names, leaves(found), leaves(expected)):
        field = geometry_of(domain.geometry, name)
        difference = field.log(x, y) if isinstance(field, Torus) else x - y
        worst = float(difference.abs().max()) / max(1.0, float(y.abs().max()))
        assert worst <= tolerance, f"{what}: field {name} is off by {worst:.2g}, allowed {tolerance:g}"
