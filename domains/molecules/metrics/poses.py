"""PoseBusters checks of generated molecules (Buttenschoen, Morris and Deane 2024, doi:10.1039/D3SC04185A).

Configuration `mol`, hydrogens kept, and the conjunction is over all samples: one that does not load failed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from rdkit import Chem, rdBase

ENERGY_RATIO = "internal_energy"


def _checkers() -> tuple[Any, Any]:
    """PoseBusters for every quick check, and for the energy ratio, a second a molecule, alone."""
    from posebusters import PoseBusters

    quick, ratio = PoseBusters(config="mol"), PoseBusters(config="mol")
    modules = quick.config["modules"]
    quick.config["modules"] = [m for m in modules if m["function"] != "energy_ratio"]
    # posebusters 0.6.5 lists the energy ratio twice, and would compute it twice
    named = [m for m in modules if m["function"] == "energy_ratio" and "chosen_binary_test_output" in m][:1]
    for module in named:
        module["parameters"] = {**module.get("parameters", {}), "num_threads": 1}
    ratio.config["modules"] = named
    return quick, ratio


def _bust(checker: Any, mol: Chem.Mol) -> dict[str, bool | None]:
    """Check names and outcomes for one molecule: None where PoseBusters has none; empty when it crashed."""
    try:
        with rdBase.BlockLogs():
            row = checker.bust([mol]).iloc[0]
    except Exception:  # it leaks pandas, numpy and RDKit errors on broken molecules
        return {}
    return {str(name): None if value != value or value is None else bool(value) for name, value in row.items()}


def pose_checks(samples: Sequence[Chem.Mol], limit: int | None = None, energy_limit: int = 200) -> dict:
    """Pass rates over the first `limit` samples, the energy ratio over the first `energy_limit` of those.

    `valid` is the conjunction without the energy ratio, over all `n`; `with_energy_ratio.valid` the full one.
    An outcome that is undefined, such as flatness of what does not sanitise, is not a pass.
    """
    samples = samples[:limit]
    quick, ratio = _checkers()
    logger = logging.getLogger("posebusters")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it warns once a molecule that fails
    try:
        rows = [_bust(quick, mol) for mol in samples]
        ratios = [_bust(ratio, mol).get(ENERGY_RATIO) for mol in samples[:energy_limit]]
    finally:
        logger.setLevel(level)
    names = sorted({name for row in rows for name in row})
    passed = [bool(row) and all(row.values()) for row in rows]
    n, m = max(len(rows), 1), max(len(ratios), 1)
    report = {
        "n": len(rows),
        "valid": sum(passed) / n,
        "crashed": sum(not row for row in rows),
        "checks": {name: sum(row.get(name) is True for row in rows) / n for name in names},
    }
    if ratios:
        report["with_energy_ratio"] = {
            "n": len(ratios),
            "valid": sum(ok and r is True for ok, r in zip(passed, ratios, strict=False)) / m,
            "energy_ratio": sum(r is True for r in ratios) / m,
            # PoseBusters makes no 50 conformers of some strained real molecules (12 % of QM9) to compare with
            "undefined": sum(r is None for r in ratios),
        }
    return report
