"""Structure prediction by number of network evaluations, k guesses a crystal, beside chance and the nearest prototype."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pymatgen.core import Structure

from sciconsist.domains.crystals.crystals import Crystal, structure_of
from sciconsist.domains.crystals.generate import Plan, Request, generate
from sciconsist.domains.crystals.metrics.prediction import match_figures, match_row
from sciconsist.domains.crystals.occupations import Choice, choose, likely_positions
from sciconsist.domains.crystals.symmetry import TOLERANCE, detect, settings
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.workflows.crystal_data import crystals_of, read_data
from sciconsist.workflows.crystal_requests import Requests, Wish, plan_for
from sciconsist.workflows.evaluate_crystals import KNOWN, baselines
from sciconsist.workflows.train_crystals import split_known

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Row:
    """One setting, or a guess without a model: match rate and RMSE of all crystals (k: the best of so many guesses)."""

    what: str
    evaluations: int | None
    boost: float | None
    n: int
    match: dict[int, float]
    rmse: dict[int, float | None]
    cpu_ms: float | None  # a crystal and guess, network and noise, one thread

    def row(self) -> dict[str, Any]:
        parts: dict[str, float | None] = {f"match_k{k}": round(v, 4) for k, v in self.match.items()}
        parts |= {f"rmse_k{k}": None if v is None else round(v, 4) for k, v in self.rmse.items()}
        cost = None if self.cpu_ms is None else round(self.cpu_ms, 2)
        return {
            "what": self.what,
            "evaluations": self.evaluations,
            "boost": self.boost,
            "n": self.n,
            **parts,
            "cpu_ms": cost,
        }


def parse_plans(model: FlowMap, text: str) -> list[Plan]:
    """`1,4,8` as the model's card divides them; `8:6` is 8 of the annealed sampler, boost 6. Raises UserError."""
    plans = []
    for part in text.split(","):
        steps, _, boost = part.partition(":")
        try:
            plan = plan_for(model, int(steps), Wish(formula="any"))
            plans.append(plan if not boost else Plan(plan.steps, boost=float(boost), jumps=False))
        except ValueError:
            raise UserError(f"steps {text!r}: expected numbers of evaluations, 1,4,8, or with a boost, 8:6") from None
    return plans


def benchmark_crystals(
    model: FlowMap, data: str = "mp-20-bt:val", steps: str = "1,4,8,16", guesses: int = 1, limit: int | None = None,
    seed: int = 0, known: str | None = KNOWN, p1: bool = False, advance: Advance = lambda n: None,
) -> Iterator[Row]:  # fmt: skip
    """A row for each setting, then (with `known`) chance and substitution. Every crystal counts, also a failed one.

    `p1`: every atom is free (see `Wish`).
    """
    targets = read_data(data)[0][:limit]
    crystals, _ = split_known(crystals_of(targets)[0], model)
    truths = [structure_of(c.numbers, c.frac, c.cell) for c in crystals]
    positions = [[] if p1 else likely_positions([c.numbers]) for c in crystals]
    for plan in parse_plans(model, steps):
        yield _row(model, plan, crystals, positions, truths, guesses, seed, advance)
    if known is None:
        return
    records, _ = read_data(known)
    found = baselines(targets, [r.structure for r in records], seed, advance)
    for name in ("chance", "substitution"):
        figures = found[name]["all_rows"]
        ks = [k for k in (1, 5) if f"match_rate_k{k}" in figures]
        match, rmse = ({k: figures[f"{what}_k{k}"] for k in ks} for what in ("match_rate", "rmse"))
        yield Row(found[name]["what"], None, None, figures["n"], match, rmse, None)


def _row(
    model: FlowMap, plan: Plan, crystals: Sequence[Crystal], positions: Sequence[Sequence[Choice]],
    truths: Sequence[Structure], guesses: int, seed: int, advance: Advance,
) -> Row:  # fmt: skip
    found: list[list[Structure]] = [[] for _ in crystals]
    seconds = 0.0
    for k in range(guesses):
        requests = [guess_request(c.numbers, known, k) for c, known in zip(crystals, positions)]
        samples = iter(generate(model, requests, plan, seed=seed, first=k * len(crystals)))
        for guess in found:
            begin = time.process_time()
            sample = next(samples)
            seconds += time.process_time() - begin
            if sample.finite:
                guess.append(structure_of(sample.numbers, sample.frac, sample.cell))
    ks = [k for k in (1, 5) if k <= guesses]
    rows = []
    for guess, truth in zip(found, truths):
        rows.append(match_row(guess, truth, ks))
        advance(1)
    figures = match_figures(rows, ks)["all_rows"]
    match, rmse = ({k: figures[f"{what}_k{k}"] for k in ks} for what in ("match_rate", "rmse"))
    cost = 1000 * seconds / (guesses * len(crystals))
    return Row(str(model.card.get("name")), plan.steps, plan.boost, len(rows), match, rmse, cost)


def guess_request(numbers: np.ndarray, known: Sequence[Choice], guess: int) -> Request:
    """What the sampler is asked for a composition: as `generate crystals --formula` asks for its sample `guess`."""
    if not known:
        return Request(len(numbers), numbers)
    orbits = choose(known, guess).orbits
    return Request(len(numbers), orbits.numbers, space_group=orbits.group.number, orbits=orbits)


def space_groups(
    model: FlowMap, count: int, each: int = 4, steps: int = 8, seed: int = 0, advance: Advance = lambda n: None
) -> dict[str, Any]:
    """How many of `each` raw samples of each of the `count` commonest space groups have the group asked for."""
    seen = {g: sum(n for n, _ in rows) for g, rows in settings().items()}
    missed: Counter[str] = Counter()
    asked = sorted(seen, key=lambda g: (-seen[g], g))[:count]
    for number in asked:
        wish = Wish(space_group=number)
        requests = Requests(model, wish, seed).of(range(each))
        for sample in generate(model, requests, plan_for(model, steps, wish), seed=seed, batch_size=each):
            found = detect(sample.numbers, sample.frac, sample.cell) if sample.finite else 0
            if found != number:
                missed[f"{number} came out as {found}"] += 1
        advance(each)
    n = len(asked) * each
    return {
        "groups": len(asked), "n": n, "kept": n - sum(missed.values()), "tolerance_angstrom": TOLERANCE, "steps": steps,
        "missed": dict(missed.most_common()),
    }  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """Rows as text."""
    ks = sorted({k for row in rows for k in row.match})
    head = (
        f"{'evaluations':>12}{'boost':>8}"
        + "".join(f"{f'match % k={k}':>14}{'RMSE':>8}" for k in ks)
        + f"{'cpu-ms':>9}  what"
    )
    lines = [head]
    for row in rows:
        cells = [f"{row.evaluations or '-':>12}{'-' if row.boost is None else row.boost:>8}"]
        for k in ks:
            share, rms = row.match.get(k), row.rmse.get(k)
            cells.append(
                f"{'-' if share is None else f'{100 * share:.1f}':>14}{'-' if rms is None else f'{rms:.3f}':>8}"
            )
        cells.append(f"{'-' if row.cpu_ms is None else f'{row.cpu_ms:.1f}':>9}  {row.what}")
        lines.append("".join(cells))
    return "\n".join(lines) + f"\n{rows[0].n} crystals; every one counts; StructureMatcher stol .5, ltol .3, angle 10"
