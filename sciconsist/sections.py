"""What a domain has to say on the report page, without a word of HTML: `workflows.report` draws it.

Every text is plain and is escaped on the page, except `Card.drawing`: markup its maker answers for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Section:
    """A part of the page; `kind` says which of the subclasses it is. `intro` stands under the title."""

    title: str
    intro: str = ""
    kind: ClassVar[str] = ""


@dataclass(frozen=True)
class Text(Section):
    """Paragraphs of plain text."""

    paragraphs: Sequence[str] = ()
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Image(Section):
    """A picture; `media` is its type, `alt` what it shows for those who cannot see it."""

    data: bytes = b""
    alt: str = ""
    media: str = "image/png"
    caption: str = ""
    kind: ClassVar[str] = "image"


@dataclass(frozen=True)
class Metric:
    """One figure. `unit` is "%" for fractions in [0, 1], otherwise what stands behind the number.

    `n` counts what it was measured on, `interval` is its 95 % interval, `reference` what real data score.
    """

    name: str
    value: float | None
    n: int | None = None
    reference: float | None = None
    meaning: str = ""
    unit: str = "%"
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Table(Section):
    """Figures with what they were measured on, what real data score and what they mean."""

    rows: Sequence[Metric] = ()
    reference_name: str = "real data"
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Histogram:
    """Counts of one quantity in equal bins from `start`, for samples and for a reference.

    `outside` samples lie beyond the bins; `n` counts them too. `distance` is Wasserstein-1 in `unit`.
    """

    title: str
    unit: str
    start: float
    width: float
    samples: Sequence[int]
    reference: Sequence[int]
    n: int
    n_reference: int
    outside: int = 0
    mean: float | None = None
    mean_reference: float | None = None
    distance: float | None = None


@dataclass(frozen=True)
class Histograms(Section):
    """Small plots of samples against a reference."""

    panels: Sequence[Histogram] = ()
    reference_name: str = "real data"
    kind: ClassVar[str] = "histograms"


@dataclass(frozen=True)
class Structure:
    """Atoms to turn round in 3D: positions in Å, bonds (i, j, order), lattice rows `cell` when periodic."""

    symbols: Sequence[str]
    positions: Sequence[Vector]
    bonds: Sequence[tuple[int, int, int]] = ()
    cell: tuple[Vector, Vector, Vector] | None = None


@dataclass(frozen=True)
class Badge:
    """A yes or a no that was measured."""

    label: str
    good: bool
    meaning: str = ""


@dataclass(frozen=True)
class Card:
    """One generated object. `drawing` is SVG that is put on the page as it is; `facts` are details."""

    name: str
    detail: str = ""
    badges: Sequence[Badge] = ()
    facts: Sequence[tuple[str, str]] = ()
    drawing: str = ""
    structure: Structure | None = None


@dataclass(frozen=True)
class Gallery(Section):
    """Objects to look at, out of `total` that were made."""

    cards: Sequence[Card] = ()
    total: int | None = None
    kind: ClassVar[str] = "gallery"
