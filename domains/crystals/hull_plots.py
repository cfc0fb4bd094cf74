"""Candidates on the hull of their chemical system, drawn."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pymatgen.core import Composition

from sciconsist.sections import Image

from .screening import composition_of
from .thermo import Hull

_PANELS = 6  # chemical systems shown
_STYLE = {"passed": ("o", "#0b62b8"), "rejected": ("x", "#a12222")}
_SUBSCRIPT = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def hull_image(rows: Sequence[Mapping[str, Any]], hull: Hull) -> Image | None:
    """Binary and ternary systems with most candidates, at most six, and the energies above hull of all of them."""
    placed = [row for row in rows if row.get("e_above_hull") is not None]
    if not placed:
        return None
    systems: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in placed:
        systems[tuple(sorted(e.symbol for e in composition_of(row)))].append(row)
    drawable = [(elements, members) for elements, members in systems.items() if len(elements) in (2, 3)]
    drawable.sort(key=lambda item: (-sum(r["status"] == "passed" for r in item[1]), -len(item[1]), item[0]))
    drawable = drawable[:_PANELS]

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = len(drawable) + 1
    across = min(3, panels)
    down = -(-panels // across)
    figure = Figure(figsize=(4.3 * across, 3.5 * down), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(down, across)).ravel()
    _overview(axes[0], placed)
    for axis, (elements, members) in zip(axes[1:], drawable):
        (_binary if len(elements) == 2 else _ternary)(axis, elements, members, hull)
    for axis in axes[panels:]:
        axis.set_axis_off()
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    names = ", ".join("-".join(elements) for elements, _ in drawable) or "none"
    return Image(
        "On the hull",
        "The hull is of known compounds alone: a candidate below it only means that nothing better is known here."
        + (" This hull is partial, so candidates look more stable than they are." if hull.partial else ""),
        data.getvalue(),
        f"Energies above hull of {len(placed)} candidates, and the hulls of the systems {names}",
        caption=f"Grey: known compounds of {hull.name}. Blue circles: candidates that are left. Red crosses: fell.",
    )


def _overview(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    values = np.array([row["e_above_hull"] for row in rows])
    top = max(0.2, float(np.percentile(values, 95)))
    clipped = np.clip(values, min(-0.2, float(np.percentile(values, 5))), top)
    axis.hist(clipped, bins=24, color="#0b62b8", alpha=0.8)
    axis.axvline(0, color="#1b1f24", linewidth=0.8)
    axis.set(xlabel="energy above hull, eV/atom", ylabel="candidates", title=f"All {len(rows)} with an energy")


def _points(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, list[Mapping[str, Any]]]]:
    return [(*style, [r for r in rows if r["status"] == status]) for status, style in _STYLE.items()]


def _binary(axis: Any, elements: Sequence[str], rows: Sequence[Mapping[str, Any]], hull: Hull) -> None:
    """Formation energy against the fraction of the second element."""
    second = elements[1]
    known = sorted((Composition(f).get_atomic_fraction(second), e, f) for f, e in _entries(elements, hull))
    known = [(0.0, 0.0, elements[0]), *known, (1.0, 0.0, second)]
    lower = _lower_hull([(x, e) for x, e, _ in known])
    axis.plot(*zip(*lower), color="#59636e", linewidth=1.2)
    axis.plot([x for x, *_ in known], [e for _, e, _ in known], "s", color="#8a96a3", markersize=4)
    for x, energy, formula in known[1:-1]:
        if (x, energy) in lower:
            axis.annotate(
                formula.translate(_SUBSCRIPT), (x, energy), fontsize=7, xytext=(3, -8), textcoords="offset points"
            )
    for marker, colour, members in _points(rows):
        fractions = [composition_of(r).get_atomic_fraction(second) for r in members]
        axis.plot(
            fractions, [r["e_form"] for r in members], marker, color=colour, markersize=6, fillstyle="none", linewidth=0
        )
    axis.set(xlabel=f"fraction of {second}", ylabel="formation energy, eV/atom", title="–".join(elements))


def _ternary(axis: Any, elements: Sequence[str], rows: Sequence[Mapping[str, Any]], hull: Hull) -> None:
    """Compositions in a triangle; the colour of a candidate is its energy above the hull."""
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])

    def place(composition: Composition) -> np.ndarray:
        return np.array([composition.get_atomic_fraction(e) for e in elements]) @ corners

    axis.plot(*np.concatenate([corners, corners[:1]]).T, color="#59636e", linewidth=1)
    for formula, _ in _entries(elements, hull):
        x, y = place(Composition(formula))
        axis.plot(x, y, "s", color="#8a96a3", markersize=4)
        axis.annotate(formula.translate(_SUBSCRIPT), (x, y), fontsize=7, xytext=(4, 3), textcoords="offset points")
    points = np.array([place(composition_of(r)) for r in rows])
    values = [r["e_above_hull"] for r in rows]
    lost = [r["status"] != "passed" for r in rows]
    for marker, chosen in (("o", [not x for x in lost]), ("X", lost)):
        if any(chosen):
            drawn = axis.scatter(
                *points[chosen].T, c=[v for v, c in zip(values, chosen) if c], marker=marker, s=52, cmap="viridis",
                vmin=min(0.0, *values), vmax=max(0.1, *values), edgecolors="#1b1f24", linewidths=0.6, zorder=3,
            )  # fmt: skip
    axis.figure.colorbar(drawn, ax=axis, label="above hull, eV/atom", shrink=0.8)
    for corner, element, shift in zip(corners, elements, ((-0.04, -0.06), (0.04, -0.06), (0.0, 0.03))):
        axis.text(corner[0] + shift[0], corner[1] + shift[1], element, ha="center", fontsize=10)
    axis.set_aspect("equal")
    axis.set_axis_off()
    axis.set_title("–".join(elements))


def _entries(elements: Sequence[str], hull: Hull) -> list[tuple[str, float]]:
    present = set(elements)
    return [(f, e) for f, e in hull.compounds.items() if {x.symbol for x in Composition(f)} <= present]


def _lower_hull(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Andrew's monotone chain, the lower half."""
    chain: list[tuple[float, float]] = []
    for x, y in sorted(points):
        while len(chain) > 1:
            (x1, y1), (x2, y2) = chain[-2:]
            if (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) > 0:
                break
            chain.pop()
        chain.append((x, y))
    return chain
