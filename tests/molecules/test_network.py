"""The denoiser turns, mirrors and permutes with its input, and padding changes nothing (float64)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciconsist.domains.molecules.network import MoleculeNetwork, NetworkConfig, Pairs, bumps, shares

B, N, K = 3, 7, 5


@pytest.fixture
def net() -> MoleculeNetwork:
    generator = torch.Generator().manual_seed(0)
    net = MoleculeNetwork(K, NetworkConfig(layers=2, width=32, pair_width=8, vectors=4, heads=2)).double()
    for p in net.parameters():  # the zero-initialised branches must speak too
        p.data = 0.2 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return net


def inputs() -> tuple[dict[str, Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    bonds = draw(B, N, N, 4)
    state = {"positions": draw(B, N, 3), "atoms": draw(B, N, K), "bonds": bonds + bonds.transpose(1, 2)}
    return state, torch.rand(B, generator=generator), torch.rand(B, generator=generator)


def run(net: MoleculeNetwork, state: dict[str, Tensor], s: Tensor, t: Tensor, real: int = N) -> dict[str, Tensor]:
    mask = (torch.arange(state["atoms"].shape[1]) < real).expand(B, -1)
    with torch.no_grad():
        return net(state, s, t, {"length_scale": torch.full((B,), 1.3)}, {"atoms": mask})


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_turned_or_mirrored(net: MoleculeNetwork, sign: float) -> None:
    state, s, t = inputs()
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64))[0]
    turn = turn * sign * torch.linalg.det(turn).sign()
    plain = run(net, state, s, t)
    turned = run(net, {**state, "positions": state["positions"] @ turn}, s, t)
    assert plain["positions"].std() > 0.1 and (plain["positions"] - state["positions"]).abs().max() > 1e-3
    torch.testing.assert_close(turned["positions"], plain["positions"] @ turn, atol=1e-10, rtol=0)
    for name in ("atoms", "bonds"):
        torch.testing.assert_close(turned[name], plain[name], atol=1e-10, rtol=0)


def test_permuted(net: MoleculeNetwork) -> None:
    state, s, t = inputs()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    plain = run(net, state, s, t)
    mixed = run(net, {n: x[:, order][:, :, order] if n == "bonds" else x[:, order] for n, x in state.items()}, s, t)
    torch.testing.assert_close(mixed["positions"], plain["positions"][:, order], atol=1e-10, rtol=0)
    torch.testing.assert_close(mixed["bonds"], plain["bonds"][:, order][:, :, order], atol=1e-10, rtol=0)
    torch.testing.assert_close(plain["bonds"], plain["bonds"].transpose(1, 2), atol=1e-10, rtol=0)


def test_padding_is_not_seen(net: MoleculeNetwork) -> None:
    state, s, t = inputs()
    cut = {n: x[:, :5, :5] if n == "bonds" else x[:, :5] for n, x in state.items()}
    short, padded = run(net, cut, s, t, real=5), run(net, state, s, t, real=5)
    torch.testing.assert_close(padded["positions"][:, :5], short["positions"], atol=1e-10, rtol=0)
    torch.testing.assert_close(padded["atoms"][:, :5], short["atoms"], atol=1e-10, rtol=0)


def test_second_time_matters_only_off_the_diagonal(net: MoleculeNetwork) -> None:
    state, s, t = inputs()
    net.target[2].weight.data.zero_()
    net.target[2].bias.data.zero_()
    torch.testing.assert_close(run(net, state, s, t)["atoms"], run(net, state, s, s)["atoms"])


def test_equivariant_by_e3nns_own_check(net: MoleculeNetwork) -> None:
    """e3nn draws rotations, inversions and translations and compares (Geiger & Smidt 2022)."""
    from e3nn.util.test import assert_equivariant

    state, s, t = inputs()

    def moved(positions: Tensor) -> Tensor:
        return run(net, {**state, "positions": positions}, s, t)["positions"]

    assert_equivariant(
        moved, args_in=[state["positions"]], irreps_in=["cartesian_points"], irreps_out=["cartesian_points"],
        do_translation=True, tolerance=1e-8,
    )  # fmt: skip


def test_a_held_field_has_a_derivative_in_time(net: MoleculeNetwork) -> None:
    """Its clock stands at 0, where a square root has none; recipes that differentiate in time hold graphs."""
    state, _, t = inputs()
    condition, mask = {"length_scale": torch.full((B,), 1.3)}, {"atoms": torch.ones(B, N, dtype=torch.bool)}
    still = torch.zeros(B)

    def at(moving: Tensor) -> Tensor:
        clock = {"positions": moving, "atoms": still, "bonds": still}
        return net(state, clock, {name: torch.zeros(B) for name in clock}, condition, mask)["positions"]

    for time in (t, still):
        _, slope = torch.func.jvp(at, (time,), (torch.ones(B),))
        assert torch.isfinite(slope).all()


def test_gaussians_of_distances_and_shares_are_what_they_say() -> None:
    generator = torch.Generator().manual_seed(3)
    d = 8 * torch.rand(50, 1, generator=generator, dtype=torch.float64)
    centres, widths = (
        torch.linspace(0.9, 2.8, 12, dtype=torch.float64),
        torch.full((12,), 1 / 0.18, dtype=torch.float64),
    )
    exact = torch.exp(-(((d - centres) * widths) ** 2))
    torch.testing.assert_close(bumps(d, centres, widths), exact, atol=1e-12, rtol=0)
    logits = 5 * torch.randn(4, 3, 9, generator=generator, dtype=torch.float64)
    logits[..., 7:] = -1e9  # masked
    torch.testing.assert_close(shares(logits), torch.softmax(logits, -1))


@pytest.mark.parametrize("atoms", [1, 2, 5])
def test_pairs_kept_once_are_those_of_a_symmetric_array(atoms: int) -> None:
    pairs = Pairs.of(atoms, torch.device("cpu"))
    x = torch.randn(3, atoms, atoms, 2, generator=torch.Generator().manual_seed(0))
    x = (x + x.transpose(1, 2)) * (1 - torch.eye(atoms))[..., None]
    once = pairs.take(x)
    assert once.shape == (3, atoms * (atoms - 1) // 2, 2)
    torch.testing.assert_close(pairs.dense(once), x, atol=0, rtol=0)
    positions = torch.randn(3, atoms, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        pairs.lengths(positions)[..., 0], pairs.take(torch.cdist(positions, positions)[..., None])[..., 0]
    )
