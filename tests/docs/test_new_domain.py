"""The example of docs/new_domain.md: under a hundred lines, keeps every domain's contract, and learns."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from sciconsist.domain import Batch
from sciconsist.testing import DomainContract

FILE = Path(__file__).resolve().parents[2] / "docs" / "jets.py"
SPEC = importlib.util.spec_from_file_location("jets", FILE)
assert SPEC is not None and SPEC.loader is not None
jets: Any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(jets)


def permute(batch: Batch, generator: torch.Generator) -> Batch:
    """Another order of the slots, the empty ones with them."""
    order = torch.randperm(batch.x0.shape[1], generator=generator)
    return Batch(batch.x0[:, order], mask=batch.mask[:, order])


class TestJets(DomainContract):
    symmetries: ClassVar[Any] = {"permuted": permute}

    def make(self) -> Any:
        return jets.Jets()

    def items(self) -> Any:
        return jets.shower(4, seed=5)

    def bad_items(self) -> Any:
        return {"too many particles": np.ones((9, 3)), "a negative energy": -np.ones((3, 3))}

    def same(self, item: Any, decoded: Any) -> bool:
        return bool(np.allclose(item, decoded, atol=1e-5))


def test_the_example_is_short_and_touches_nothing() -> None:
    assert len(FILE.read_text(encoding="utf-8").splitlines()) < 100
    assert FILE.name in (FILE.parent / "new_domain.md").read_text(encoding="utf-8")


def test_the_shower_conserves_energy_and_momentum() -> None:
    for jet in jets.shower(50, seed=1):
        assert jet[:, 0].sum() == pytest.approx(1.0)
        assert np.abs((jet[:, :1] * jet[:, 1:]).sum(0)).max() < 1e-12


@pytest.mark.slow
def test_the_example_learns_in_seconds() -> None:
    scores = jets.main(steps=300)
    for n in (1, 2, 4):
        assert scores[f"{n} steps"]["width"] < 0.8 * scores["noise"]["width"]
        assert scores[f"{n} steps"]["energy"] < 0.5 * scores["noise"]["energy"]
