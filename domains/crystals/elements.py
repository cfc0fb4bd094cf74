"""What the network is told of an element, so that it need not learn the periodic table from 15,000 crystals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def descriptors(symbols: Sequence[str]) -> list[list[float]]:
    """Standardised numbers of each element, `[K, 12]`: place in the table, size, electronegativity, oxidation states.

    From pymatgen's table; an unknown value is the mean. They are stored with a model's config, so that weights never
    depend on a later table.
    """
    from pymatgen.core import Element

    rows = []
    for symbol in symbols:
        e = Element(symbol)
        common = e.common_oxidation_states or e.oxidation_states or (0,)
        rows.append(
            [
                float(e.Z), float(e.row), float(e.group), float(e.mendeleev_no or np.nan),
                float(e.X), float(e.atomic_radius or np.nan), float(e.ionic_radii.get(max(common), np.nan)),
                float(max(common)), float(min(common)), float(np.mean(common)),
                float(e.block in "d"), float(e.block in "f"),
            ]
        )  # fmt: skip
    table = np.array(rows, dtype=np.float64)
    mean, std = np.nanmean(table, 0), np.nanstd(table, 0)
    table = np.nan_to_num((table - mean) / np.maximum(std, 1e-6), nan=0.0)
    return [[round(float(v), 4) for v in row] for row in table]
