"""Training the part of a crystal model that draws compositions: maximum likelihood, the best step on held-out formulas kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciconsist.checkpoint import save_model
from sciconsist.domain import Batch
from sciconsist.domains.crystals.adapter import composition_of
from sciconsist.domains.crystals.composition_network import (
    CompositionConfig,
    Formulas,
    electronegativity_order,
    formulas_of,
)
from sciconsist.domains.crystals.crystals import Crystal
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.losses import LossParts
from sciconsist.random import fresh_weights, stream
from sciconsist.recipes import RECIPES
from sciconsist.training import FitResult
from sciconsist.workflows.models import build, load
from sciconsist.workflows.runs import RunConfig, Until, run

LIKELIHOOD = replace(RECIPES["fm"], name="composition", paper="maximum likelihood of compositions")
HELD_OUT = 0.05  # of the formulas, where no validation set is named
EVERY = 200  # steps between looks at the held-out formulas


class CompositionData:
    """Compositions in memory; a batch has no noise and no times."""

    def __init__(self, formulas: Formulas) -> None:
        self.formulas = formulas

    def __len__(self) -> int:
        return len(self.formulas.atoms)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        x0 = {name: value[indices] for name, value in self.formulas._asdict().items()}
        return Batch(x0, noise={})


def likelihood_loss(model: FlowMap, recipe: Any, x0: Any, noise: Any, **_: Any) -> LossParts:
    """Nats a composition, in the form of `flow_map_loss`."""
    network = composition_of(model)
    assert network is not None
    nats = -network.log_likelihood(Formulas(**x0))
    return LossParts(nats.mean(), nats)


def with_composition(model: FlowMap, other: FlowMap | None = None, seed: int = 0) -> FlowMap:
    """The same crystal model with a composition part: `other`'s, or a fresh one. Raises UserError for other elements."""
    config = {k: v for k, v in model.config.items() if k != "domain"}
    given = None if other is None else composition_of(other)
    if other is not None:
        if given is None or other.config["elements"] != config["elements"]:
            raise UserError("the model to take compositions from has no such part, or other elements")
        part = other.config["composition"]
    else:
        largest = max(int(n) for n in config["size_histogram"])
        part = CompositionConfig(order=electronegativity_order(config["elements"]), largest=largest).model_dump()
    with fresh_weights(seed):
        whole = build({"domain": "crystals", **config, "composition": part})
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith("composition.")}
    if given is not None:
        weights |= {f"composition.{k}": v for k, v in given.state_dict().items()}
    whole.load_state_dict(weights, strict=other is not None)
    whole.card = dict(model.card)
    return whole


def held_out(crystals: Sequence[Crystal], share: float = HELD_OUT) -> np.ndarray:
    """Which crystals to hold out `[M]`: all those of a formula or none, in an order that depends on the formula alone."""
    keys = []
    for c in crystals:
        numbers, counts = np.unique(c.numbers, return_counts=True)
        keys.append(tuple(int(v) for pair in zip(numbers, counts // np.gcd.reduce(counts)) for v in pair))
    order = sorted(set(keys), key=lambda key: stream(0, "held out", *key).initial_seed())
    chosen = set(order[: math.ceil(share * len(order))])
    return np.array([key in chosen for key in keys])


def train_composition(
    model: FlowMap, crystals: Sequence[Crystal], validation: Sequence[Crystal], out: str | Path, config: RunConfig,
    until: Until,
) -> FitResult:  # fmt: skip
    """Fit the composition part of `model`, whose other weights stay; `out` gets the whole model of the best step."""
    whole = model if composition_of(model) is not None else with_composition(model, seed=until.seed)
    network = composition_of(whole)
    assert network is not None
    largest, order = network.config.largest, network.config.order

    def ready(part: Sequence[Crystal]) -> Formulas:
        classes = [whole.domain.classes(c.numbers) for c in part if len(c) <= largest]
        if not classes:
            raise UserError("too few formulas to hold some out: name other data with --set validation=DATA")
        return formulas_of(classes, order)

    out, held = Path(out), ready(validation)
    data = CompositionData(ready(crystals))
    for parameter in whole.net.parameters():
        parameter.requires_grad_(False)
    best = out / "best.safetensors"  # of the whole run, also a resumed one
    lowest = load(best).card["validation_nats"] if until.resume and best.is_file() else np.inf

    def validate(averaged: FlowMap, step: int) -> Mapping[str, float]:
        nonlocal lowest
        nats = float(
            likelihood_loss(averaged, None, {k: v.to(until.device) for k, v in held._asdict().items()}, None).total
        )
        if nats < lowest:
            lowest = nats
            save_model(best, averaged, {**averaged.card, "validation_nats": nats, "composition_steps": step})
        return {"nats": nats}

    options: dict[str, Any] = {"loss": likelihood_loss, "validate": validate, "validate_every": EVERY}
    result = run(whole, LIKELIHOOD, data, out, config, until, **options)
    chosen = load(best)
    card = {k: v for k, v in chosen.card.items() if k != "sha256"}
    whole.load_state_dict(chosen.state_dict())
    save_model(out / "model.safetensors", whole, card, recipe=LIKELIHOOD)
    return result
