"""Training on crystals that keep their space group: states on the path, the velocity there, and the loss."""

from __future__ import annotations

import numpy as np
import torch
from pymatgen.core import Lattice, Structure

from sciconsist.domains.crystals.crystals import crystal_of
from sciconsist.domains.crystals.lattice import to_vector
from sciconsist.domains.crystals.symmetry import detect
from sciconsist.flowmap import FlowMap
from sciconsist.workflows.crystal_data import Mixture
from sciconsist.workflows.crystal_trajectories import jump_loss
from sciconsist.workflows.symmetric_data import SymmetricData

RUTILE = Structure.from_spacegroup("P4_2/mnm", Lattice.tetragonal(4.6, 2.96), ["Ti", "O"], [[0] * 3, [0.305, 0.305, 0]])
WURTZITE = Structure.from_spacegroup(
    "P6_3mc", Lattice.hexagonal(3.8, 6.2), ["Ti", "O"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.375]]
)


def data(model: FlowMap) -> SymmetricData:
    return SymmetricData([crystal_of(s, {}) for s in (RUTILE, WURTZITE)], model.domain, values=0.25)


def test_the_velocity_carries_a_state_to_its_end(small: FlowMap) -> None:
    batch = data(small).on_paths([0, 1] * 8, torch.Generator().manual_seed(0))
    s = batch.times.s["frac"][:, None, None]  # type: ignore[union-attr, index]
    apart = batch.noise["frac"] - s * batch.condition["arc"] - batch.x0["frac"]  # type: ignore[index]
    real = batch.mask["frac"].unsqueeze(-1)  # type: ignore[index]
    assert ((apart - torch.round(apart)).abs() * real).max() < 1e-6
    assert (batch.condition["arc"] * real).sum(1).abs().max() < 1e-5  # no drift: wurtzite's origin along c is free


def test_states_keep_the_space_group(small: FlowMap) -> None:
    known = data(small)
    batch = known.on_paths([0, 1] * 8, torch.Generator().manual_seed(1))
    cells = small.domain.cells(batch.noise["lattice"], batch.condition, batch.mask["frac"])  # type: ignore[index]
    for k, cell in enumerate(cells):
        p = known.placed[k % 2]
        frac = p.orbits.place(batch.noise["frac"][k, : len(p.frac)].double().numpy())  # type: ignore[index]
        wanted = batch.noise["frac"][k, : len(p.frac)].numpy()  # type: ignore[index]
        assert np.abs(frac - wanted - np.round(frac - wanted)).max() < 1e-5
        np.testing.assert_allclose(to_vector(p.orbits.cell(cell), 6), to_vector(cell, 6), atol=1e-5)
        assert detect(p.orbits.numbers, frac, p.orbits.cell(cell)) == p.number


def test_noise_takes_the_near_image_on_its_site(small: FlowMap) -> None:
    """Oxygen of rutile moves along (x, x, 0) alone, and at most half of the way between its images."""
    known = data(small)
    p = next(q for q in known.placed if q.number == 136)
    free = [k for k, site in enumerate(p.orbits.sites) if site.freedom]
    for u in np.random.default_rng(0).uniform(size=(40, len(p.orbits.sites), 3)):
        way = known.ways(p, u)
        site = p.orbits.sites[free[0]]
        np.testing.assert_allclose(site.projector @ way[free[0]], way[free[0]], atol=1e-9)
        assert np.abs(way[free[0]]).max() <= 0.5 + 1e-9
        assert all((way[k] == 0).all() for k in range(len(way)) if k not in free)


def test_the_loss_is_nothing_where_the_network_is_right(small: FlowMap) -> None:
    batch = data(small).on_paths([0, 1], torch.Generator().manual_seed(0))
    given = {**batch.x0, "frac": batch.condition["arc"], "species": batch.x0["species"]}  # type: ignore[dict-item]
    losses, parts = small.domain.loss(given, given, batch.times.s, batch.mask)  # type: ignore[union-attr]
    assert parts["frac"].max() == 0 and parts["lattice"].max() == 0
    options = {"times": batch.times, "condition": batch.condition, "mask": batch.mask}
    found = jump_loss(small, None, batch.x0, batch.noise, **options)  # type: ignore[arg-type]
    found.total.backward()
    assert found.total > losses.mean() and any(
        p.grad is not None and p.grad.abs().sum() > 0 for p in small.parameters()
    )


def test_a_mixture_takes_turns_in_its_shares(small: FlowMap) -> None:
    first, second = data(small), data(small)
    turns: list[int] = []
    for k, part in enumerate((first, second)):
        whole = part.batch
        part.batch = lambda i, g, k=k, whole=whole: (turns.append(k), whole(i, g))[1]  # type: ignore[method-assign]
    both, generator = Mixture([(0.75, first), (0.25, second)]), torch.Generator().manual_seed(0)
    for _ in range(200):
        both.batch(torch.tensor([0, 1]), generator)
    assert len(both) == 2 and 0.15 < np.mean(turns) < 0.35
