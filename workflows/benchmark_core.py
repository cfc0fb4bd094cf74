"""Every recipe on seven small targets whose answers are known: what `sciconsist benchmark core` runs.

Each run is one line of `results.jsonl`, so a run that was stopped goes on where it was. Nothing here is tuned
to a recipe: one network, learning rate, batch and number of steps a target.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor

from sciconsist.distillation import progressive
from sciconsist.domain import Batch
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Euclidean, Torus
from sciconsist.losses import flow_map_loss
from sciconsist.metrics import wasserstein2
from sciconsist.random import stream
from sciconsist.recipes import RECIPES, Recipe
from sciconsist.sampling import jump, ode, uniform
from sciconsist.training import TrainingDiverged, fit
from sciconsist.workflows.benchmark_targets import TARGETS, Target

SAMPLES = 1024  # that W2 is measured with: about a tenth of a second
STEPS = 400
STRESS_BATCH, STRESS_RATE = 128, 2e-2
COUNTS = (1, 2, 4)
BASELINES = ("data", "exact", "euler100")
Row = dict[str, Any]


@dataclass
class Bench:
    """One target, its teacher and its fixed noise and reference, made when first asked for."""

    target: Target
    steps: int
    seed: int
    warm: bool = False

    def __len__(self) -> int:
        return 1 << 12  # an epoch in name only: every batch is drawn anew

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        x0, mask = self.target.data(len(indices), generator)
        return Batch(x0, mask=mask)

    @cached_property
    def noise(self) -> tuple[Tensor, Any]:
        """What samples are made from: a scrambled Sobol set, so that W2 has a low floor."""
        return self.even_noise(0)

    def even_noise(self, index: int) -> tuple[Tensor, Any]:
        x0, mask = self.target.data(SAMPLES, stream(self.seed, "shape"))
        geometry = self.target.model(0).geometry
        count = x0[0].numel()
        u = torch.quasirandom.SobolEngine(count, scramble=True, seed=2 * self.seed + index).draw(SAMPLES)
        if not isinstance(geometry, Torus):
            u = torch.special.ndtri(u.double().clamp(1e-7, 1 - 1e-7)).float()
        noise = u.view(x0.shape)
        return geometry.project(noise, mask) if isinstance(geometry, Euclidean) else noise, mask

    @cached_property
    def reference(self) -> tuple[Any, Any]:
        """The exact map's image of another Sobol set; data where there is no exact map."""
        if self.target.exact is None:
            return self.target.data(SAMPLES, stream(self.seed, "reference"))
        noise, mask = self.even_noise(1)
        return self.target.exact(noise).float(), mask

    @cached_property
    def exact(self) -> Any:
        return None if self.target.exact is None else self.target.exact(self.noise[0])

    @cached_property
    def teacher(self) -> FlowMap:
        """Flow matching for twice the steps: what the recipes that distil begin with and learn from, and `warm` all."""
        model = self.target.model(self.seed)
        self.train(model, RECIPES["fm"], 2 * self.steps)
        return model

    @cached_property
    def fm_cost(self) -> float:
        return self.cost(RECIPES["fm"])

    def pace(self, stress: bool) -> tuple[int, float]:
        """Batch size and learning rate."""
        return (STRESS_BATCH, STRESS_RATE) if stress else (self.target.batch, self.target.rate)

    def train(self, model: FlowMap, recipe: Recipe, steps: int, stress: bool = False, **extra: Any) -> list[Row]:
        size, rate = self.pace(stress)
        found = fit(
            model, recipe, self, steps=steps, batch_size=size, lr=rate, seed=self.seed, log_every=1, progress=False,
            **extra,
        )  # fmt: skip
        return found.log

    def distance(self, x: Any) -> float:
        see = self.target.compare
        (reference, mask), (_, own) = self.reference, self.noise
        return wasserstein2(see(x, own), see(reference, mask), self.target.ground)

    def rmse(self, x: Any) -> float | None:
        """Root mean square distance to the exact map's image of the same noise."""
        if self.exact is None:
            return None
        geometry = self.target.model(0).geometry
        apart = geometry.sq_norm(geometry.log(self.exact, x.double()))  # type: ignore[arg-type]
        return float(apart.mean().sqrt())

    def cost(self, recipe: Recipe) -> float:
        """Milliseconds of processor time of a loss and its gradient, the least of some: half way through training."""
        model = self.target.model(self.seed)
        teacher, average = copy.deepcopy(model), copy.deepcopy(model)
        batch = self.batch(torch.arange(self.target.batch), stream(0, "cost"))
        noise = model.geometry.prior(batch.x0, batch.mask, generator=stream(1, "cost"))  # type: ignore[arg-type]
        times = []
        for k in range(12):
            begin = time.process_time()
            loss = flow_map_loss(
                model, recipe, batch.x0, noise, progress=0.5, generator=stream(k, "cost"), mask=batch.mask,
                teacher=teacher, target_model=average,
            )  # fmt: skip
            loss.total.backward()
            times.append(1e3 * (time.process_time() - begin))
        return min(times[2:])


def benchmark_core(
    folder: Path,
    *,
    recipes: Sequence[str] = tuple(RECIPES),
    targets: Sequence[str] = tuple(TARGETS),
    steps: int = STEPS,
    stress: bool = True,
    seeds: Sequence[int] = (0,),
    warm: bool = False,
    progress: Callable[[str], None] = lambda label: None,
) -> list[Row]:
    """Run what `folder/results.jsonl` does not have yet; all rows that were asked for, also in `folder/table.md`.

    `warm` begins every recipe with the flow-matching teacher's weights. Under stress only the first seed is run.
    """
    path = folder / "results.jsonl"
    done = {key_of(r): r for r in read_rows(path) if r["steps"] == steps and r.get("warm", False) == warm}
    rows = []
    for seed in seeds:
        benches = {name: Bench(TARGETS[name], steps, seed, warm) for name in targets}
        for target, recipe, hard in jobs(recipes, targets, stress and seed == seeds[0]):
            key = (target, recipe, hard, seed)
            if key not in done:
                begin = time.process_time()
                row = {"target": target, "recipe": recipe, "stress": hard, "steps": steps, "seed": seed, "warm": warm}
                row |= run(benches[target], recipe, hard)
                row["seconds"] = round(time.process_time() - begin, 1)  # of the processor
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                done[key] = row
            rows.append(done[key])
            progress(f"{target} {recipe}")
    (folder / "table.md").write_text(table(rows), encoding="utf-8")
    return rows


def choose(recipes: str | None, targets: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names from comma-separated lists; None is all of them. Raises UserError for a name that does not exist."""
    found = []
    for given, known, what in ((recipes, tuple(RECIPES), "recipe"), (targets, tuple(TARGETS), "target")):
        names = known if given is None else tuple(part.strip() for part in given.split(","))
        for name in names:
            if name not in known:
                raise UserError(f"{what} {name!r}: expected one of {', '.join(known)}")
        found.append(names)
    return found[0], found[1]


def jobs(recipes: Sequence[str], targets: Sequence[str], stress: bool) -> Iterator[tuple[str, str, bool]]:
    for target in targets:
        for recipe in (*BASELINES, *recipes):
            if recipe != "exact" or TARGETS[target].exact is not None:
                yield target, recipe, False
        if stress and target == "gaussians8":
            for recipe in recipes:
                yield target, recipe, True


def key_of(row: Row) -> tuple[str, str, bool, int]:
    return row["target"], row["recipe"], row["stress"], row["seed"]


def read_rows(path: Path) -> list[Row]:
    """Finished runs; a last line cut short by a kill is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def run(bench: Bench, name: str, stress: bool) -> Row:
    """One line of the results: W2 at 1, 2 and 4 steps, RMSE to the exact map at 1, cost, largest gradient."""
    if name == "data":
        x, mask = bench.target.data(SAMPLES, stream(bench.seed, "again"))
        see = bench.target.compare
        floor = wasserstein2(see(x, mask), see(*bench.reference), bench.target.ground)
        return {"w2": [floor] * len(COUNTS), "rmse": None}
    if name == "exact":
        return {"w2": [bench.distance(bench.exact)] * len(COUNTS), "rmse": 0.0}
    x, mask = bench.noise
    if name == "euler100":
        y = ode(bench.teacher, x, uniform(100), "euler", mask=mask)
        return {"w2": [bench.distance(y)] * len(COUNTS), "rmse": bench.rmse(y)}
    recipe = RECIPES[name]
    model = bench.target.model(bench.seed)
    teacher = bench.teacher if recipe.needs_teacher else None
    if teacher is not None or bench.warm:
        model.load_state_dict(bench.teacher.state_dict())
    try:
        if name == "pd":
            size, rate = bench.pace(stress)
            stages = progressive(
                model, bench, steps=bench.steps, batch_size=size, lr=rate, seed=bench.seed, log_every=1, warmup=10,
                progress=False,
            )  # fmt: skip
            log = [row for stage in stages for row in stage.log]
        else:
            log = bench.train(model, recipe, bench.steps, stress, teacher=teacher)
    except TrainingDiverged:
        return {"w2": [math.inf] * len(COUNTS), "rmse": math.inf, "diverged": True}
    walk = (lambda n: ode(model, x, uniform(n), "euler", mask=mask)) if recipe.anchor == 1.0 else (
        lambda n: jump(model, x, uniform(n), mask=mask)
    )  # fmt: skip
    ends = [walk(n) for n in COUNTS]
    return {
        "w2": [bench.distance(y) for y in ends],
        "rmse": bench.rmse(ends[0]),
        "cost": bench.cost(recipe) / bench.fm_cost,
        "gradient": max(r["grad_norm"] for r in log[50:] or log),
        "skipped": log[-1]["skipped"],
    }


# --- the tables -------------------------------------------------------------------------------------------


def over_seeds(rows: Sequence[Row]) -> list[Row]:
    """One row for the seeds of each run: means, of the gradient the largest; `spread`: (largest - least) / mean of W2."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key_of(row)[:3], []).append(row)
    found = []
    for group in groups.values():
        w2 = [[float(v) for v in values] for values in zip(*(r["w2"] for r in group))]
        merged = {**group[0], "w2": [sum(v) / len(v) for v in w2], "spread": (max(w2[0]) - min(w2[0])) * len(group)}
        merged["spread"] /= sum(w2[0])
        for name, join in (("rmse", mean), ("cost", mean), ("gradient", max)):
            if all(r.get(name) is not None for r in group):
                merged[name] = join([r[name] for r in group])
        found.append(merged)
    return found


def table(rows: Sequence[Row]) -> str:
    """Three tables as Markdown, means over the seeds: W2, RMSE to the exact map, and what training was like."""
    seeds = sorted({r["seed"] for r in rows})
    merged = over_seeds(rows)
    calm = {(r["recipe"], r["target"]): r for r in merged if not r["stress"]}
    hard = {r["recipe"]: r for r in merged if r["stress"]}
    targets = list(dict.fromkeys(r["target"] for r in rows))
    names = list(dict.fromkeys(r["recipe"] for r in rows))

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    def block(head: Sequence[str], body: list[list[str]]) -> list[str]:
        return [line(head), line(["---"] * len(head)), *(line(cells) for cells in body)]

    w2 = [[LABELS.get(n, n)] + [triple(calm.get((n, t))) for t in targets] for n in names]
    rmse = [
        [LABELS.get(n, n)] + [number(calm.get((n, t), {}).get("rmse")) for t in targets if TARGETS[t].exact]
        for n in names if n not in ("data", "exact")
    ]  # fmt: skip
    training = []
    for n in (n for n in names if n not in BASELINES):
        own = [calm[n, t] for t in targets if "cost" in calm[n, t]]
        costs, gradients = (sorted(r[k] for r in own) for k in ("cost", "gradient"))
        middle = costs[len(costs) // 2] if costs else None
        stress = "diverged" if hard.get(n, {}).get("diverged") else number(hard[n]["w2"][0]) if n in hard else "-"
        top = number(hard.get(n, {}).get("gradient"))
        training.append([n, number(middle), number(gradients[-1] if gradients else None), stress, top])
    spread = median(r["spread"] for (n, _), r in calm.items() if n not in BASELINES) if len(seeds) > 1 else None
    apart = (
        "" if spread is None else f" (means of {len(seeds)} seeds, which are {spread:.0%} of it apart in the median)"
    )
    return "\n".join(
        [
            f"W2 to the data at 1 / 2 / 4 evaluations{apart}:", "",
            *block(["", *targets], w2), "",
            "RMSE to the exact map at 1 evaluation:", "",
            *block(["", *(t for t in targets if TARGETS[t].exact)], rmse), "",
            "Training: cost of a step relative to fm (median of the targets), largest gradient norm, and under stress:",
            "", *block(["", "cost", "gradient", "stress W2", "stress gradient"], training), "",
        ]
    )  # fmt: skip


LABELS = {"data": "*data against data*", "exact": "*exact map*", "euler100": "*fm, 100 Euler steps*"}


def triple(row: Row | None) -> str:
    if row is None:
        return "-"
    if row["recipe"] in BASELINES:
        return number(row["w2"][0])
    return " / ".join(number(v) for v in row["w2"])


def number(value: float | None) -> str:
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "diverged"
    if value >= 1e4:
        return f"{value:.0e}"
    text = f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"
    return text.lstrip("0") if text.startswith("0.") else text
