"""Published objectives as rows of one table: a kind, a velocity, a split schedule, a target, a weight.

Where a paper uses a weight that depends on the residual (pseudo-Huber, MeanFlow p = 1, sCM's tangent
normalisation), the row leaves it out: on random targets it changes the minimiser. Every row keeps an anchor
on the diagonal (plain flow matching), also those published without one, so that each model has a velocity.
`dataclasses.replace(row, ...)` changes any of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sciconsist.times import AlphaSchedule, TimeSampler

KINDS = ("eulerian", "lagrangian", "progressive")
VELOCITIES = ("conditional", "self", "teacher")
TARGETS = ("self", "ema", "teacher")
WEIGHTS = ("unit", "velocity", "map", "gap", "cosine", "edm", "learned")


@dataclass(frozen=True)
class Recipe:
    """One row.

    `velocity` is the v of the table in `targets`; `tangent` the direction of the eulerian JVP, if another
    (iMF). `limit` is "finite" or "jvp"; a finite row whose alpha has fallen to `jvp_below` goes on as its
    limit. `target` says whose stop-gradient map is the target: the model's own, its moving average's, the
    teacher's. `weight` is a function of the times, fixed (see `losses.weight_of`) or "learned" (see
    `weighting`). `per_alpha` divides by alpha, as a finite residual is alpha times its limit's. `solver_steps`
    are the teacher's steps from s to w. `pairs = "teacher"` replaces the data by the teacher's own endpoint of
    the noise, integrated in `solver_steps` steps.
    `through` lets gradients pass the target: the squared residual of the identity itself. LSD and LMD need it, as
    a velocity at points the map itself makes up feeds back on the map (categories keep the regression).
    """

    name: str
    kind: str = "eulerian"
    velocity: str = "conditional"
    limit: str = "finite"
    target: str = "self"
    weight: str = "unit"
    tangent: str | None = None
    jvp_below: float = 0.0
    per_alpha: bool = False
    through: bool = False
    solver_steps: int = 1
    pairs: str = "data"
    times: TimeSampler = field(default_factory=TimeSampler)
    paper: str = ""

    def __post_init__(self) -> None:
        for value, allowed in (
            (self.kind, KINDS), (self.velocity, VELOCITIES), (self.target, TARGETS), (self.weight, WEIGHTS),
            (self.limit, ("finite", "jvp")), (self.pairs, ("data", "teacher")),
            (self.tangent, (None, *VELOCITIES)),
        ):  # fmt: skip
            if value not in allowed:
                raise ValueError(f"recipe {self.name!r}: {value!r} is none of {allowed}")
        if self.kind == "lagrangian" and self.velocity == "conditional":
            raise ValueError(
                f"recipe {self.name!r}: the lagrangian kind evaluates the velocity at a generated point, "
                "where no conditional velocity exists: take 'self' or 'teacher'"
            )
        if self.kind == "progressive" and self.limit == "jvp":
            raise ValueError(f"recipe {self.name!r}: the progressive kind has no JVP limit")
        if self.through and self.velocity == "conditional":
            raise ValueError(f"recipe {self.name!r}: gradients through a random target move the minimiser")

    @property
    def anchor(self) -> float:
        """Fraction of the batch on the diagonal."""
        return self.times.diagonal

    @property
    def needs_teacher(self) -> bool:
        return "teacher" in (self.velocity, self.target, self.tangent, self.pairs)

    @property
    def needs_target_model(self) -> bool:
        return self.target == "ema"


LOGNORMAL = TimeSampler("logitnormal", -0.4, 1.0)  # MeanFlow's choice of times

_ROWS = (
    Recipe("fm", times=TimeSampler(diagonal=1.0), paper="Lipman et al. 2023, flow matching"),
    Recipe(
        "ct", target="ema", weight="map", times=TimeSampler(target="grid", grid=(2, 150)),
        paper="Song et al. 2023, consistency training (doubling grid, squared error)",
    ),
    Recipe(
        "ict", weight="gap", times=TimeSampler("logitnormal", -1.1, 2.0, target="grid"),
        paper="Song and Dhariwal 2024, improved consistency training (without its pseudo-Huber metric)",
    ),
    Recipe(
        "ect", weight="gap",
        times=TimeSampler("logitnormal", -0.8, 1.6, target="zero", alpha=AlphaSchedule("ect")),
        paper="Geng et al. 2024, easy consistency tuning (c = 0: squared error)",
    ),
    Recipe(
        "cd", velocity="teacher", target="ema", weight="map", times=TimeSampler(target="grid", grid=(18, 18)),
        paper="Song et al. 2023, consistency distillation (18 points; Euler step of the teacher)",
    ),
    Recipe(
        "scm", limit="jvp", weight="cosine", times=TimeSampler("logitnormal", -1.0, 1.4, target="zero"),
        paper="Lu and Song 2025, eq. 6 (without tangent normalisation)",
    ),
    Recipe(
        "meanflow", limit="jvp", weight="velocity", times=replace(LOGNORMAL, diagonal=0.75),
        paper="Geng et al. 2025, eq. 10 (p = 0: no adaptive weight)",
    ),
    Recipe(
        "imf", limit="jvp", tangent="self", weight="velocity", times=replace(LOGNORMAL, diagonal=0.5),
        paper="Geng et al. 2025b, improved MeanFlow: the tangent is the model's own velocity",
    ),
    Recipe(
        "alphaflow", weight="velocity", per_alpha=True, jvp_below=0.006,
        times=replace(LOGNORMAL, alpha=AlphaSchedule("sigmoid", 1.0, 0.005)),
        paper="Zhang et al. 2025, alpha-Flow: trajectory flow matching to MeanFlow",
    ),
    Recipe(
        "soflow", weight="velocity", per_alpha=True,
        times=replace(LOGNORMAL, diagonal=0.75, alpha=AlphaSchedule("exponential", 0.1, 0.002)),
        paper="Luo et al. 2025, solution flow models",
    ),
    Recipe(
        "shortcut", "progressive", weight="velocity",
        times=TimeSampler(target="dyadic", diagonal=0.75, alpha=AlphaSchedule(end=0.5)),
        paper="Frans et al. 2024, shortcut models (the model's own halves)",
    ),
    Recipe(
        "psd", "progressive", weight="velocity", times=TimeSampler(diagonal=0.75),
        paper="Boffi et al. 2025, progressive self-distillation with uniform splits",
    ),
    Recipe(
        "pd", "progressive", velocity="teacher", target="teacher", weight="velocity",
        times=TimeSampler(target="halving", diagonal=0.25, alpha=AlphaSchedule(end=0.5)),
        paper="Salimans and Ho 2022: two teacher steps into one; the student of a stage teaches the next",
    ),
    Recipe(
        "lsd", "lagrangian", "self", "jvp", weight="velocity", through=True, times=TimeSampler(diagonal=0.5),
        paper="Boffi et al. 2025, Lagrangian self-distillation",
    ),
    Recipe(
        "lsd_fd", "lagrangian", "self", weight="velocity",
        times=TimeSampler(diagonal=0.5, alpha=AlphaSchedule("linear", 1.0, 0.05)),
        paper="LSD with a finite split annealed 1 -> .05 (ours)",
    ),
    Recipe(
        "lmd", "lagrangian", "teacher", "jvp", weight="velocity", through=True, times=TimeSampler(),
        paper="Boffi et al. 2024, Lagrangian map distillation",
    ),
    Recipe(
        "ctm", velocity="teacher", target="ema", weight="velocity", solver_steps=4,
        times=TimeSampler(diagonal=0.5, alpha=AlphaSchedule("linear", 0.5, 0.5)),
        paper="Kim et al. 2024, consistency trajectory models (halfway solver target, compared at t; no GAN)",
    ),
    Recipe(
        "reflow", pairs="teacher", solver_steps=20, times=TimeSampler(diagonal=1.0),
        paper="Liu et al. 2023, rectified flow on the teacher's own pairs",
    ),
)  # fmt: skip

RECIPES: dict[str, Recipe] = {row.name: row for row in _ROWS}
