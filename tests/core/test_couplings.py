"""Couplings: only permute and rotate, and do find the best."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from sciconsist.couplings import align_points, kabsch, minibatch_ot


def rotation(generator: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(generator.normal(size=(3, 3)))
    return q * np.sign(np.diag(r))


def test_minibatch_ot_is_the_best_permutation(generator: torch.Generator) -> None:
    x, y = torch.randn(2, 6, 2, generator=generator, dtype=torch.float64)
    order = minibatch_ot(x, y)
    assert sorted(order.tolist()) == list(range(6))  # the marginal stays: each draw is used once
    cost = (x - y[order]).square().sum().item()
    best = min((x - y[list(p)]).square().sum().item() for p in itertools.permutations(range(6)))
    assert abs(cost - best) < 1e-12


def test_minibatch_ot_finds_monotone_rearrangement() -> None:
    """In one dimension the optimal coupling sorts."""
    x, y = torch.tensor([[3.0], [1.0], [2.0]]), torch.tensor([[10.0], [30.0], [20.0]])
    assert y[minibatch_ot(x, y)].flatten().tolist() == [30.0, 10.0, 20.0]


def test_kabsch_recovers_a_known_rotation() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(4, 7, 3))
    x -= x.mean(1, keepdims=True)
    known = np.stack([rotation(draw) for _ in range(4)])
    y = x @ known.transpose(0, 2, 1)  # y R = x
    assert np.allclose(kabsch(x, y), known, atol=1e-12)


def test_kabsch_beats_random_rotations() -> None:
    draw = np.random.default_rng(1)
    x, y = draw.normal(size=(2, 1, 6, 3))
    best = np.square(x - y @ kabsch(x, y)).sum()
    assert all(np.square(x - y @ rotation(draw)).sum() >= best - 1e-12 for _ in range(200))


def clouds(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    mask = torch.tensor([[1] * 6 + [0] * 2, [1] * 8, [1] * 3 + [0] * 5]).bool()
    x, y = torch.randn(2, 3, 8, 3, generator=generator) * mask[..., None]
    centre = [v - (v.sum(1, keepdim=True) / mask.sum(1)[:, None, None]) * mask[..., None] for v in (x, y)]
    return centre[0], centre[1], mask


def test_alignment_only_permutes_and_rotates(generator: torch.Generator) -> None:
    """Sorted pairwise distances of the noise are what they were; unreal nodes stay put."""
    x, y, mask = clouds(generator)
    aligned, order = align_points(x, y, mask)
    for k, n in enumerate(mask.sum(1).tolist()):
        assert sorted(order[k, :n].tolist()) == list(range(n))
        assert order[k, n:].tolist() == list(range(n, 8))
        before, after = (torch.pdist(v[k, :n]).sort().values for v in (y, aligned))
        assert torch.allclose(before, after, atol=1e-5)
        assert (aligned[k, n:] == 0).all()
    assert (aligned - x).square().sum() < (y - x).square().sum()


def test_alignment_finds_the_same_cloud_again(generator: torch.Generator) -> None:
    """Noise that is the data turned and shuffled aligns back exactly, axes' signs permitting: the minority may not."""
    x, _, mask = clouds(generator)
    draw = np.random.default_rng(2)
    y = torch.from_numpy(np.einsum("bni,bij->bnj", x.numpy(), np.stack([rotation(draw)] * 3))).float()
    aligned, _ = align_points(x, y, mask, permute=False)
    assert (aligned - x).abs().max() < 1e-5


def test_alignment_without_permutation_keeps_the_order(generator: torch.Generator) -> None:
    x, y, mask = clouds(generator)
    _, order = align_points(x, y, mask, permute=torch.tensor([True, False, True]))
    assert order[1].tolist() == list(range(8))


def test_extra_cost_decides_the_assignment(generator: torch.Generator) -> None:
    x, y, mask = clouds(generator)
    extra = torch.full((3, 8, 8), 1e6)
    wanted = torch.tensor([5, 4, 3, 2, 1, 0])
    extra[0, torch.arange(6), wanted] = 0.0
    _, order = align_points(x, y, mask, extra)
    assert order[0, :6].tolist() == wanted.tolist()


def test_alignment_keeps_the_dtype(generator: torch.Generator) -> None:
    x, y, mask = clouds(generator)
    assert align_points(x, y, mask)[0].dtype == x.dtype
    assert align_points(x.double(), y.double(), mask)[0].dtype == torch.float64


def test_pairing_within_a_condition_keeps_the_noise_ignorant(generator: torch.Generator) -> None:
    """Classes at -3 and 3: plain pairing gives each its own half of the noise, pairing within classes does not."""
    labels = torch.arange(256) % 2
    x0 = (6.0 * labels - 3)[:, None] + torch.randn(256, 1, generator=generator)
    noise = torch.randn(256, 1, generator=generator)

    def apart(order: torch.Tensor) -> float:
        paired = noise[order, 0]
        return float((paired[labels == 1].mean() - paired[labels == 0].mean()).abs())

    plain, within = minibatch_ot(x0, noise), minibatch_ot(x0, noise, labels)
    assert apart(plain) > 1.2
    assert apart(within) == pytest.approx(apart(torch.arange(256)), abs=1e-5)
    assert apart(within) < 0.3
    assert torch.equal(labels[within], labels)
    assert sorted(within.tolist()) == list(range(256))
    cost = (x0 - noise).square().mean()
    assert (x0 - noise[plain]).square().mean() < (x0 - noise[within]).square().mean() < cost
    between = minibatch_ot(x0, noise, labels, weight=1.0)
    assert apart(within) < apart(between) < apart(plain)
