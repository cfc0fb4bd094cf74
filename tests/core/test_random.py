"""Streams: a draw depends on the seed and its purpose, not on the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sciconsist.geometry import Euclidean, Product, Simplex, Torus
from sciconsist.random import draw_prior, per_sample_noise, stream

GEOMETRY = Product(
    {
        "x": Euclidean(zero_com=True),
        "frac": Torus(),
        "kind": Simplex(2.0),
        "bonds": Simplex(2.0, symmetric=True),
    }
)


def state(sizes: list[int], pad: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    like = {
        "x": torch.zeros(len(sizes), pad, 3),
        "frac": torch.zeros(len(sizes), pad, 3),
        "kind": torch.zeros(len(sizes), pad, 5),
        "bonds": torch.zeros(len(sizes), pad, pad, 4),
    }
    node = torch.arange(pad)[None] < torch.tensor(sizes)[:, None]
    pairs = node[:, :, None] & node[:, None, :] & ~torch.eye(pad, dtype=torch.bool)
    return like, {"x": node, "frac": node, "kind": node, "bonds": pairs}


def draw(*key: int | str) -> torch.Tensor:
    return torch.rand(4, generator=stream(0, *key))


def test_a_stream_is_its_seed_and_purpose() -> None:
    assert torch.equal(draw("prior", 3), draw("prior", 3))
    assert torch.equal(draw("prior", 3), draw("prior", np.int64(3)))  # type: ignore[arg-type]
    others = [draw("prior", 4), draw("size", 3), draw("prior", "3"), draw("prior"), draw("pri", "or", 3)]
    assert not any(torch.equal(draw("prior", 3), other) for other in others)
    assert not torch.equal(draw("prior", 3), torch.rand(4, generator=stream(1, "prior", 3)))


def test_streams_do_not_touch_global_state() -> None:
    before = torch.get_rng_state()
    draw("prior", 3)
    assert torch.equal(before, torch.get_rng_state())


def test_a_sample_is_the_same_in_every_batch_and_padding() -> None:
    like, mask = state([3, 1, 5], pad=5)
    together = per_sample_noise(GEOMETRY, like, 7, [10, 11, 12], mask)
    assert isinstance(together, dict)
    for k, (size, index) in enumerate([(3, 10), (1, 11), (5, 12)]):
        like_k, mask_k = state([size], pad=size + k)
        alone = per_sample_noise(GEOMETRY, like_k, 7, [index], mask_k)
        for name, value in alone.items():
            box = (slice(0, size),) * (2 if name == "bonds" else 1)
            assert torch.equal(value[0][box], together[name][k][box]), name
            assert int(value[0].count_nonzero()) == int(value[0][box].count_nonzero())
    assert torch.allclose(together["x"].sum(1), torch.zeros(3, 3), atol=1e-5)
    assert torch.equal(together["bonds"], together["bonds"].transpose(1, 2))


def test_one_tensor_and_the_number_of_generators() -> None:
    noise = per_sample_noise(Euclidean(), torch.zeros(3, 4), 0, [0, 1, 2])
    assert isinstance(noise, torch.Tensor)
    again = per_sample_noise(Euclidean(), torch.zeros(1, 4), 0, [2])
    assert torch.equal(noise[2:], again)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected one a sample"):
        draw_prior(Euclidean(), torch.zeros(3, 4), generator=[stream(0)])
