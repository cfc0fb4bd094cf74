"""What the report page says about downscaled fields: figures, maps, spectra, rank histograms, reliability."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from sciconsist.extras import need
from sciconsist.sections import Image, Metric, Section, Table, Text

from .fields import UNITS, Grid
from .metrics.spectra import radial_spectrum

_MAPS = {"tp": "YlGnBu", "u10": "RdBu_r", "v10": "RdBu_r"}
_MEANING = {
    "rmse": "Root mean square error of the ensemble's mean",
    "crps": "Fair CRPS: error of the whole ensemble; the absolute error for one member",
    "spread_skill": "Spread over error; 1 when calibrated",
    "reliability_index": "Unevenness of the rank histogram; 0 is flat",
    "log_spectral_distance": "Distance of spectra; 0 is perfect",
    "high_frequency": "Power the input cannot hold, over the truth's; 1 is right",
    "q99_error": "Error of the 99 % quantile", "q99.9_error": "Error of the 99.9 % quantile",
    "wet_frequency_error": "Error of the share of wet days (more than 1 mm)",
    "wasserstein": "Distance of the distributions of values",
    "lag1": "Correlation of a cell with its next time; the truth's beside",
    "return_level_error": "Mean error of the 20-year level of yearly maxima",
    "conservation": "Largest deviation of area means from the input, in its standard deviations",
}  # fmt: skip
_IN_UNITS = {"rmse", "crps", "q99_error", "q99.9_error", "wasserstein", "return_level_error"}


def climate_sections(
    figures: Mapping[str, Mapping[str, Any]],
    names: Sequence[str],
    samples: np.ndarray,
    truth: np.ndarray,
    coarse: np.ndarray,
    grid: Grid,
    mask: np.ndarray,
    factor: int,
    times: Sequence[str],
    others: Mapping[str, np.ndarray] | None = None,
) -> list[Section]:
    """Sections for `workflows.report.write_report`.

    `figures` by method (samples first) and variable; `samples` `[M, T, C, H, W]`, `truth` `[T, C, H, W]`, `coarse`
    `[T, C, h, w]`; `others` are samples of further methods for the spectra. Pictures need matplotlib (UserError).
    """
    plt = need("matplotlib.pyplot", "plots", "drawing maps")
    plt.switch_backend("Agg")
    methods = list(figures)
    sections: list[Section] = []
    for c, name in enumerate(names):
        sections.append(_table(figures, methods, name))
        sections.append(_comparison(figures, methods, name))
        sections.append(_maps(plt, name, samples[:, :, c], truth[:, c], coarse[:, c], grid, mask, times))
        curves = {"samples": samples[:, :, c], **{k: v[:, :, c] for k, v in (others or {}).items()}}
        sections.append(_spectra(plt, name, curves, truth[:, c], mask, factor))
        sections.append(_calibration(plt, name, figures["samples"][name], len(samples)))
    return sections


def _table(figures: Mapping[str, Mapping[str, Any]], methods: Sequence[str], name: str) -> Table:
    """Figures of the samples beside the best baseline by CRPS."""
    mine = figures["samples"][name]
    rivals = [m for m in methods if m != "samples"]
    best = min(rivals, key=lambda m: figures[m][name]["crps"]) if rivals else None
    rows = [
        Metric(
            key.replace("_", " "), mine[key], None, None if best is None else figures[best][name].get(key), meaning,
            UNITS.get(name, "") if key in _IN_UNITS else "",
        )
        for key, meaning in _MEANING.items() if key in mine
    ]  # fmt: skip
    intro = "Area means by cosine of latitude."
    if best is not None:
        intro += f" Beside the samples: the best of the baselines by CRPS, {best}."
    return Table(f"{name}: figures", intro, rows, best or "none")


def _comparison(figures: Mapping[str, Mapping[str, Any]], methods: Sequence[str], name: str) -> Text:
    lines = [
        f"{method}: RMSE {found['rmse']:.4g}, CRPS {found['crps']:.4g}, high frequency {found['high_frequency']:.3g}"
        for method, found in ((m, figures[m][name]) for m in methods)
    ]
    return Text(f"{name}: all methods", "", lines)


def _maps(
    plt: Any, name: str, samples: np.ndarray, truth: np.ndarray, coarse: np.ndarray, grid: Grid, mask: np.ndarray,
    times: Sequence[str],
) -> Image:  # fmt: skip
    """Coarse, truth, mean, two members and spread of the time with the largest fine variance."""
    time = int(np.nanargmax([np.nanvar(np.where(mask, f, np.nan)) for f in truth]))
    hide = lambda field: np.where(mask, field, np.nan)  # noqa: E731
    member = samples[:, time]
    panels = [("input", coarse[time]), ("truth", hide(truth[time])), ("mean", hide(member.mean(0)))]
    panels += [(f"member {k}", hide(m)) for k, m in enumerate(member[:2])]
    panels.append(("spread", hide(member.std(0, ddof=1) if len(member) > 1 else np.zeros_like(truth[time]))))
    return picture(plt, name, panels, grid, f"{name} at {times[time]}")


def picture(plt: Any, name: str, panels: Sequence[tuple[str, np.ndarray]], grid: Grid, title: str) -> Image:
    """Maps of one variable on common colours, except the spread; coastlines where cartopy is installed."""
    coast, options = _projection()
    shape = grid.shape
    across = 3 if shape[1] < 2.2 * shape[0] else 2
    down = -(-len(panels) // across)
    width = 3.6 * across
    figure, axes = plt.subplots(
        down, across, figsize=(width, down * (width / across * min(shape[0] / shape[1], 1.6) + 0.6)), squeeze=False,
        layout="constrained", subplot_kw=options,
    )  # fmt: skip
    shared = np.concatenate([v[np.isfinite(v)] for label, v in panels if label != "spread"])
    low, high = np.percentile(shared, [0.5, 99.5])
    if name in ("u10", "v10"):
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    half = (grid.cell[1] / 2, grid.cell[0] / 2)
    extent = (grid.lon[0] - half[0], grid.lon[-1] + half[0], grid.lat[-1] - half[1], grid.lat[0] + half[1])
    for ax, (label, values) in zip(axes.flat, panels):
        own = label == "spread"
        image = ax.imshow(
            values, extent=extent, origin="upper", cmap="magma" if own else _MAPS.get(name, "RdYlBu_r"),
            vmin=None if own else low, vmax=None if own else high, interpolation="nearest", aspect="auto",
        )  # fmt: skip
        ax.set_title(label, fontsize=9)
        ax.tick_params(labelsize=7)
        ax.locator_params(nbins=4)
        if coast is not None:
            coast(ax)
        figure.colorbar(image, ax=ax, shrink=0.8).ax.tick_params(labelsize=7)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    unit = UNITS.get(name, "")
    labels = ", ".join(label for label, _ in panels)
    return Image(f"{name}: maps", "", _png(plt, figure), f"Maps of {name}: {labels}", caption=f"{title}, {unit}")


def _projection() -> tuple[Any, dict[str, Any]]:
    """Cartopy's coastlines if it is installed and has them on disk: nothing is fetched."""
    if find_spec("cartopy") is None:
        return None, {}
    import cartopy.crs
    from cartopy.io.shapereader import NEShpDownloader

    target = NEShpDownloader.default_downloader()
    found = target.target_path({"category": "physical", "name": "coastline", "resolution": "110m", "config": {
        "data_dir": cartopy.config["data_dir"], "pre_existing_data_dir": cartopy.config["pre_existing_data_dir"],
        "repo_data_dir": cartopy.config["repo_data_dir"]}})  # fmt: skip
    if not found.is_file():
        return None, {}
    return (lambda ax: ax.coastlines("110m", linewidth=0.6)), {"projection": cartopy.crs.PlateCarree()}


def _spectra(
    plt: Any, name: str, curves: Mapping[str, np.ndarray], truth: np.ndarray, mask: np.ndarray, factor: int
) -> Image:
    figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    k, power = radial_spectrum(np.where(mask, truth, 0.0), mask)
    ax.loglog(k, power, "k", lw=2.5, label="truth")
    for label, values in curves.items():
        ax.loglog(k, radial_spectrum(np.where(mask, values, 0.0), mask)[1], lw=1.4, label=label)
    ax.axvline(1 / (2 * factor), color="0.6", ls=":", lw=1)
    ax.set(xlabel="cycles a cell", ylabel="power", ylim=(power.min() / 30, power.max() * 3))
    ax.legend(fontsize=7, ncols=2)
    ax.grid(alpha=0.2)
    caption = "Radial power spectra; right of the dotted line the input holds nothing."
    return Image(f"{name}: spectra", "", _png(plt, figure), f"Radial power spectra of {name}", caption=caption)


def _calibration(plt: Any, name: str, found: Mapping[str, Any], members: int) -> Image:
    """Rank histogram and reliability side by side."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    ranks = np.asarray(found["rank_histogram"])
    left.bar(range(len(ranks)), ranks * len(ranks), width=0.9, color="#4477aa")
    left.axhline(1, color="k", lw=1)
    left.set(xlabel=f"rank of the truth among {members}", ylabel="share x (M + 1)")
    forecast, happened, share = (np.asarray(v, float) for v in found["reliability"])
    right.plot([0, 1], [0, 1], "k", lw=1)
    right.plot(forecast, happened, "o-", color="#aa3377", ms=4)
    right.bar(np.linspace(0.05, 0.95, len(share)), share * 0.3, width=0.08, color="0.8", zorder=0)
    what = "more than 1 mm/day" if name == "tp" else "above the truth's median"
    right.set(xlabel=f"forecast probability, {what}", ylabel="how often it was so", xlim=(0, 1), ylim=(0, 1))
    caption = "Rank histogram (flat when calibrated) and reliability (on the diagonal); bars: how often forecast."
    return Image(f"{name}: calibration", "", _png(plt, figure), f"Calibration of {name}", caption=caption)


def _png(plt: Any, figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()
