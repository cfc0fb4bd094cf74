"""One page that shows what was generated: it holds all it needs, works offline and never asks the network.

Sections come from the domains (`sciconsist.sections`); HTML is made here. Same sections, same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from functools import singledispatch
from html import escape
from importlib import resources
from typing import Any

from sciconsist import __version__
from sciconsist.files import atomic_path
from sciconsist.sections import (
    Badge,
    Card,
    Gallery,
    Histogram,
    Histograms,
    Image,
    Metric,
    Section,
    Structure,
    Table,
    Text,
)

DISCLAIMER = "Computer-generated, not synthesised or tested."
_IMAGES = ("image/png", "image/jpeg", "image/webp", "image/gif")
_PANEL = (300, 160)  # width and height of a histogram
_MARGINS = (14, 14, 10, 22)  # left, right, top, bottom
_VIEWER = "3Dmol-min.js"


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    sections: Sequence[Section],
    provenance: Mapping[str, object] | None = None,
) -> None:
    """Write the page. `provenance` names what made the objects: model, version, seed, steps, data licence.

    Raises OSError, which names the file.
    """
    page = render(title, sections, provenance or {})
    with atomic_path(path) as temporary:
        temporary.write_bytes(page.encode("utf-8", errors="replace"))


def write_molecule_report(
    path: str | os.PathLike[str],
    molecules: Sequence[Any],
    result: Mapping[str, Any],
    *,
    title: str = "Generated molecules",
    **options: Any,
) -> None:
    """The page of generated molecules; figures are `result["samples"]`, beside `result["ceiling"]` if scored.

    Provenance is what the first molecule says about itself. `options` are those of `molecule_sections`.
    """
    from sciconsist.domains.molecules.report import molecule_sections

    made = molecule_sections(molecules, result.get("samples"), ceiling=result.get("ceiling"), **options)
    write_report(path, title=title, sections=made, provenance=molecule_provenance(molecules))


def write_crystal_report(
    path: str | os.PathLike[str],
    rows: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    hull: Any,
    inputs: Mapping[str, Any],
    *,
    title: str = "Screened crystals",
) -> None:
    """The page of a screen: `rows` and `summary` as `screen_materials.screen` makes them, `inputs` before relaxing."""
    from sciconsist.domains.crystals.report import screening_sections

    provenance = {key: summary[key] for key in ("relaxer", "reference") if summary.get(key)}
    if hull is not None:
        provenance |= {"hull": hull.name, "licence of the hull": hull.licence}
    made = screening_sections(rows, summary, hull, inputs)
    write_report(path, title=title, sections=made, provenance={**summary.get("origin", {}), **provenance})


def write_crystal_evaluation(path: str | os.PathLike[str], found: Any, *, title: str = "Generated crystals") -> None:
    """The page of scored crystals; `found` is `evaluate_crystals`' Evaluation."""
    from sciconsist.domains.crystals.evaluation_report import evaluation_sections

    made = evaluation_sections(found.structures, found.reference, found.samples, found.ceiling, found.about)
    write_report(path, title=title, sections=made, provenance=found.about["origin"])


def molecule_provenance(molecules: Sequence[Any]) -> dict[str, str]:
    """What the first molecule's properties say about its making."""
    keys = (
        "generator", "model", "model_version", "model_sha256", "seed", "steps", "selection", "training_data",
        "training_data_licence",
    )  # fmt: skip
    return {key: molecules[0].GetProp(key) for key in keys if molecules and molecules[0].HasProp(key)}


def render(title: str, sections: Sequence[Section], provenance: Mapping[str, object]) -> str:
    """The page as text."""
    bodies = [_section(section, f"section-{k}") for k, section in enumerate(sections, 1)]
    scripts = []
    if any(isinstance(s, Gallery) and any(c.structure for c in s.cards) for s in sections):
        scripts = [_asset(_VIEWER), _asset("report.js")]
    # Only these scripts run and nothing is fetched, even if something hostile slipped through the escaping.
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts) or "'none'"
    slots = {
        "title": escape(title),
        "policy": f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        "disclaimer": escape(DISCLAIMER),
        "contents": "".join(
            f'<li><a href="#section-{k}">{escape(s.title)}</a></li>' for k, s in enumerate(sections, 1)
        ),
        "sections": "\n".join(bodies),
        "provenance": _provenance(provenance),
        "scripts": "".join(f"<script>{s}</script>\n" for s in scripts),
    }
    return re.sub(r"<!--slot:(\w+)-->", lambda match: slots[match[1]], _asset("report.html"))


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _asset(name: str) -> str:
    folder = resources.files("sciconsist.workflows").joinpath("report_assets")
    return folder.joinpath(name).read_text(encoding="utf-8")


def _section(section: Section, name: str) -> str:
    intro = f'<p class="intro">{escape(section.intro)}</p>' if section.intro else ""
    return (
        f'<section id="{name}" class="{escape(section.kind)}" aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{escape(section.title)}</h2>{intro}{_body(section)}</section>'
    )


@singledispatch
def _body(section: Section) -> str:
    raise TypeError(f"no way to draw a section of kind {section.kind!r}")


@_body.register
def _(section: Text) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in section.paragraphs)


@_body.register
def _(section: Image) -> str:
    if section.media not in _IMAGES:
        raise ValueError(f"image of type {section.media!r}: expected one of {', '.join(_IMAGES)}")
    source = f"data:{section.media};base64,{base64.b64encode(section.data).decode()}"
    caption = f"<figcaption>{escape(section.caption)}</figcaption>" if section.caption else ""
    return f'<figure><img src="{source}" alt="{escape(section.alt)}">{caption}</figure>'


# --- figures


@_body.register
def _(section: Table) -> str:
    beside = any(row.reference is not None for row in section.rows)
    columns = ["Samples", "n", *([section.reference_name.capitalize()] if beside else [])]
    head = "".join(f'<th scope="col" class="number">{escape(text)}</th>' for text in columns)
    caption = f"{section.title}: samples beside {section.reference_name}." if beside else f"{section.title}."
    if any(row.interval is not None for row in section.rows):
        caption += " Small figures are 95 % intervals."
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(section.title)}"><table>'
        f"<caption>{escape(caption)}</caption>"
        f'<thead><tr><th scope="col">Figure</th>{head}<th scope="col">Meaning</th></tr></thead>'
        f"<tbody>{''.join(_metric(row, beside) for row in section.rows)}</tbody></table></div>"
    )


def _metric(row: Metric, beside: bool) -> str:
    value = escape(_value(row.value, row.unit))
    if row.interval is not None and row.value is not None:
        low, high = (_value(v, row.unit).removesuffix(" %") for v in row.interval)
        value += f" <small>{escape(low)} – {escape(high)}</small>"
    n = "–" if row.n is None else f"{row.n:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    texts = (value, n, escape(_value(row.reference, row.unit))) if beside else (value, n)
    numbers = "".join(f'<td class="number">{text}</td>' for text in texts)
    return f'<tr><th scope="row">{escape(row.name)}</th>{numbers}<td>{escape(row.meaning)}</td></tr>'


def _value(value: float | None, unit: str) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    if unit == "%":
        return f"{100 * value:.1f} %"
    return f"{value:.3g}{'' if unit == '°' else ' '}{unit}".strip()


# --- histograms


@_body.register
def _(section: Histograms) -> str:
    if not section.panels:
        return '<p class="empty">Nothing to compare.</p>'
    reference = escape(section.reference_name)
    legend = (
        f'<p class="legend"><span class="key samples"></span>samples <span class="key reference"></span>{reference}</p>'
    )
    figures = "".join(f"<li>{_panel(p, section.reference_name)}</li>" for p in section.panels)
    rows = "".join(map(_panel_row, section.panels))
    unit = escape(section.panels[0].unit)
    head = "".join(
        f'<th scope="col" class="number">{text}</th>'
        for text in ("n", f"mean, {unit}", f"mean of {reference}, {unit}", f"W₁, {unit}", "beyond the axis")
    )
    title = escape(section.title)
    return (
        f'{legend}<ul class="panels">{figures}</ul><details><summary>The same as a table</summary>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title} as a table"><table>'
        f"<caption>{title} of samples and of {reference}</caption>"
        f'<thead><tr><th scope="col">Type</th>{head}</tr></thead><tbody>{rows}</tbody>'
        "</table></div></details>"
    )


def _panel_row(panel: Histogram) -> str:
    numbers = (
        str(panel.n), _decimals(panel.mean, panel), _decimals(panel.mean_reference, panel),
        _value(panel.distance, ""), str(panel.outside),
    )  # fmt: skip
    cells = "".join(f'<td class="number">{text}</td>' for text in numbers)
    return f'<tr><th scope="row">{escape(panel.title)}</th>{cells}</tr>'


def _decimals(value: float | None, panel: Histogram) -> str:
    return "–" if value is None else f"{value:.{3 if panel.unit == 'Å' else 1}f}"


def _panel(panel: Histogram, reference_name: str) -> str:
    """A filled area for the reference and a line for the samples, both as densities."""
    merge = _merge(panel)
    samples = _densities(panel.samples, panel.n, merge)
    reference = _densities(panel.reference, panel.n_reference, merge)
    width, height = _PANEL
    left, right, top, bottom = _MARGINS
    floor = height - bottom
    peak = max(reference + samples, default=0.0) or 1.0
    end = panel.start + panel.width * len(panel.reference)
    step = (width - left - right) / (len(reference) or 1)

    def outline(densities: list[float], closed: bool) -> str:
        points = [f"M{left},{floor}"]
        for k, density in enumerate(densities):
            y = floor - (floor - top) * density / peak
            points.append(f"V{y:.1f}H{left + (k + 1) * step:.1f}")
        return "".join(points) + f"V{floor}" + ("Z" if closed else "")

    ticks = "".join(
        f'<path class="tick" d="M{x:.1f},{floor}v4"/><text x="{x:.1f}" y="{floor + 16}">{label}</text>'
        for x, label in (
            (left + (width - left - right) * (t - panel.start) / (end - panel.start), label)
            for t, label in _ticks(panel.start, end, panel.unit)
        )
    )
    drawn = f'<path class="samples" d="{outline(samples, False)}"/>' if panel.n else ""
    if not panel.n:
        drawn = f'<text class="none" x="{width / 2}" y="{top + 14}">none in the samples</text>'
    note = ""
    if panel.distance is not None:
        note = f"W₁ {panel.distance:.2g}{panel.unit if panel.unit == '°' else f' {panel.unit}'}"
    if panel.outside:
        note += f" · {100 * panel.outside / panel.n:.2g} % beyond the axis"
    alt = f"{panel.title}: n = {panel.n}; {note}"
    if panel.mean is not None:
        alt += f"; mean {_decimals(panel.mean, panel)} {panel.unit}"
    if panel.mean_reference is not None:
        alt += f"; mean of {reference_name} {_decimals(panel.mean_reference, panel)} {panel.unit}"
    return (
        f"<figure><figcaption><b>{escape(panel.title)}</b> <span>n = {panel.n}</span></figcaption>"
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(alt)}">'
        f'<path class="reference" d="{outline(reference, True)}"/>{drawn}'
        f'<path class="axis" d="M{left},{floor}H{width - right}"/>{ticks}</svg>'
        f"<p>{escape(note) or '&nbsp;'}</p></figure>"
    )


def _merge(panel: Histogram) -> int:
    """How many bins are drawn as one: few samples make a ragged line in fine bins."""
    wanted = min(60, max(16, 5 * panel.n ** (1 / 3))) if panel.n else 60
    return max(1, round(len(panel.reference) / wanted))


def _densities(counts: Sequence[int], total: int, merge: int) -> list[float]:
    groups = [counts[k : k + merge] for k in range(0, len(counts), merge)]
    return [sum(group) / max(total, 1) / len(group) for group in groups]


def _ticks(start: float, end: float, unit: str) -> list[tuple[float, str]]:
    """Three to six round numbers within an axis, the unit behind the last."""
    power = 10.0 ** math.floor(math.log10((end - start) / 5))
    step = next(s * power for s in (1, 2, 5, 10) if (end - start) / (s * power) <= 5.5)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(start / step - 1e-9), math.floor(end / step + 1e-9)
    labels = {k: f"{k * step:.{digits}f}" for k in range(first, last + 1)}
    labels[last] += unit if unit == "°" else f" {unit}"
    return [(k * step, escape(label)) for k, label in labels.items()]


# --- the gallery


@_body.register
def _(section: Gallery) -> str:
    if not section.cards:
        return '<p class="empty">Nothing was generated.</p>'
    structures = [None if c.structure is None else _compact(c.structure) for c in section.cards]
    # `<` would end the script element; what is left cannot leave the JSON string
    data = json.dumps(structures, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    cards = "".join(_card(card, k) for k, card in enumerate(section.cards))
    return (
        '<div class="stage" hidden><div class="view" tabindex="0" role="img" aria-label="3D view"></div>'
        '<div class="about"><h3></h3><div class="chosen"></div>'
        '<p class="tools"><button type="button" class="previous">← Previous</button>'
        '<button type="button" class="next">Next →</button>'
        '<button type="button" class="reset">Reset view</button>'
        '<label>Atoms as <select class="style"><option value="ball">balls and sticks</option>'
        '<option value="stick">sticks</option><option value="space">spheres</option></select></label>'
        '<label><input type="checkbox" class="labels"> Labels</label></p>'
        '<p class="hint">Drag or use the arrow keys to turn, scroll or + and − to zoom.</p></div></div>'
        '<p class="tools switch" hidden><span>Show cards as</span>'
        '<button type="button" class="flat" aria-pressed="true">drawings</button>'
        '<button type="button" class="solid" aria-pressed="false">3D</button></p>'
        '<noscript><p class="empty">The 3D view needs JavaScript; the drawings do not.</p></noscript>'
        f'<ol class="cards">{cards}</ol><script type="application/json" class="structures">{data}</script>'
    )


def _card(card: Card, index: int) -> str:
    badges = "".join(map(_badge, card.badges))
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in card.facts)
    drawing = card.drawing or '<span class="empty">no drawing: atoms without bonds</span>'
    return (
        f'<li class="card" data-index="{index}"><div class="picture">{drawing}</div>'
        f'<button type="button" class="pick" aria-pressed="false"><code>{escape(card.name)}</code></button>'
        f'<p class="detail">{escape(card.detail)}</p><ul class="badges">{badges}</ul>'
        f"<details><summary>More</summary><dl>{facts}</dl></details></li>"
    )


def _badge(badge: Badge) -> str:
    kind, mark, negation = ("good", "✓", "") if badge.good else ("bad", "✗", "not ")
    return (
        f'<li class="{kind}" title="{escape(badge.meaning)}"><span aria-hidden="true">{mark}</span>'
        f"{negation}{escape(badge.label)}</li>"
    )


def _compact(structure: Structure) -> dict[str, object]:
    return {
        "e": " ".join(structure.symbols),
        "x": [round(float(v), 3) for position in structure.positions for v in position],
        "b": [int(v) for bond in structure.bonds for v in bond],
        "c": None if structure.cell is None else [[float(v) for v in row] for row in structure.cell],
    }


def _provenance(provenance: Mapping[str, object]) -> str:
    rows = {"page written by": f"sciconsist {__version__}", **provenance}
    items = "".join(f"<dt>{escape(str(k).replace('_', ' '))}</dt><dd>{escape(str(v))}</dd>" for k, v in rows.items())
    return f"<dl>{items}</dl>"
