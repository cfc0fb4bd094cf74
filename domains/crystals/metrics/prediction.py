"""Structure prediction: match rate and RMS distance (Xie et al. 2021; Jiao et al. 2023), and their chance level.

A figure says which rows it counts: papers count rows whose truth and guess are both valid, which caps it near 90 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pymatgen.core import Structure

from sciconsist.random import stream

from .matching import Tolerances, matcher
from .validity import smact_valid, structurally_valid

PREDICTION = Tolerances(0.3, 0.5, 10.0)


def rms_distance(first: Structure, second: Structure, tolerances: Tolerances = PREDICTION) -> float | None:
    """Normalised RMS distance of two crystals, None when they do not match."""
    if first.composition.reduced_formula != second.composition.reduced_formula:
        return None
    found = matcher(tolerances).get_rms_dist(first, second)
    return None if found is None else float(found[0])


@dataclass
class Match:
    """One row of structure prediction: the best RMS among the first k guesses, None without a match."""

    rms: dict[int, float | None]
    valid: bool  # the true crystal and the first guess are valid: rows that papers usually count


def match_row(guesses: Sequence[Structure], truth: Structure, ks: Sequence[int] = (1, 5)) -> Match:
    """Match of up to max(ks) guesses of one crystal. A guess that is not structurally valid does not match."""
    found: list[float | None] = [
        rms_distance(guess, truth) if structurally_valid(guess) else None for guess in guesses[: max(ks)]
    ]
    best = {k: min((rms for rms in found[:k] if rms is not None), default=None) for k in ks}
    usual = [*guesses[:1], truth]
    return Match(best, bool(guesses) and all(structurally_valid(s) and smact_valid(s.composition) for s in usual))


def match_figures(rows: Sequence[Match], ks: Sequence[int] = (1, 5)) -> dict:
    """Match rate and mean RMS of the matched, of all rows and of the rows that papers count ("valid")."""
    figures: dict[str, Any] = {"tolerances": PREDICTION._asdict()}
    for name, counted in (("all_rows", list(rows)), ("valid_rows", [row for row in rows if row.valid])):
        figures[name] = {"n": len(counted)}
        for k in ks:
            rms = [row.rms[k] for row in counted if row.rms[k] is not None]
            figures[name][f"match_rate_k{k}"] = len(rms) / len(counted) if counted else None
            figures[name][f"rmse_k{k}"] = float(np.mean(rms)) if rms else None  # type: ignore[arg-type]
    # What the usual table prints: valid pairs that match, over all rows; it cannot reach 100 %.
    usual = sum(row.valid and row.rms[ks[0]] is not None for row in rows)
    figures["valid_matches_over_all_rows"] = usual / len(rows) if rows else None
    figures["valid_rows_cap"] = sum(row.valid for row in rows) / len(rows) if rows else None
    return figures


def random_guess(truth: Structure, generator: torch.Generator) -> Structure:
    """Uniform coordinates in the true cell with the true composition: the chance level of a match."""
    coordinates = torch.rand(len(truth), 3, generator=generator, dtype=torch.float64).numpy()
    return Structure(truth.lattice, truth.species, coordinates)


def chance_level(
    truths: Sequence[Structure], names: Sequence[str], seed: int = 0, advance: Callable[[int], None] = lambda n: None
) -> dict:
    """Match figures of one random guess a crystal; the guess depends on the seed and the crystal's name."""
    rows = []
    for truth, name in zip(truths, names):
        rows.append(match_row([random_guess(truth, stream(seed, "chance", name))], truth, (1,)))
        advance(1)
    return match_figures(rows, (1,))
