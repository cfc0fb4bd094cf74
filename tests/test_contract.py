"""The contract itself: a domain of thirty lines passes it, and each broken promise is caught."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from sciconsist.domain import Batch
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Euclidean
from sciconsist.testing import DomainContract, with_state


class Net(nn.Module):
    """Points drawn to the mean of the real ones: turns, shifts and permutes with them."""

    def __init__(self) -> None:
        super().__init__()
        self.gains = nn.Linear(3, 2)

    def forward(self, x: Tensor, s: Tensor, t: Tensor, condition: Any, mask: Tensor) -> Tensor:
        real = mask[..., None].to(x.dtype)
        mean = (x * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)
        a, b = self.gains(torch.stack([s, t, condition], -1).to(x.dtype))[:, None].chunk(2, -1)
        return (a * x + (1 + b) * (x - mean)) * real


class Points:
    """Clouds of points `[N, 2]`."""

    geometry = Euclidean()

    def collate(self, items: Any) -> Batch:
        for item in items:
            if item.dim() != 2 or not bool(item.isfinite().all()):
                raise ValueError("expected finite [N, 2]")
        mask = torch.arange(max(map(len, items)))[None] < torch.tensor([len(i) for i in items])[:, None]
        x = torch.zeros(*mask.shape, 2)
        for row, item in zip(x, items):
            row[: len(item)] = item
        return Batch(x, condition=mask.sum(1).float(), mask=mask)

    def network(self, size: Any = None) -> nn.Module:
        return Net()

    def model(self) -> FlowMap:
        model = FlowMap(self.network(), geometry=self.geometry)
        model.domain = self
        return model

    def decode(self, batch: Batch) -> list[Tensor]:
        assert isinstance(batch.mask, Tensor)
        return [x[m] for x, m in zip(batch.x0, batch.mask)]

    def metrics(self, samples: Any, reference: Any) -> dict[str, float]:
        return {"mean": float(torch.cat(list(samples)).mean())}


def turn(batch: Batch, generator: torch.Generator) -> Batch:
    x = batch.x0
    assert isinstance(x, Tensor)
    return with_state(batch, x @ torch.linalg.qr(torch.randn(2, 2, generator=generator, dtype=x.dtype))[0])


def permute(batch: Batch, generator: torch.Generator) -> Batch:
    x, mask = batch.x0, batch.mask
    assert isinstance(x, Tensor) and isinstance(mask, Tensor)
    order = torch.randperm(x.shape[1], generator=generator)
    return Batch(x[:, order], condition=batch.condition, mask=mask[:, order])


class TestPoints(DomainContract):
    symmetries: ClassVar = {"turned": turn, "permuted": permute}

    def make(self) -> Any:
        return Points()

    def items(self) -> list[Tensor]:
        return [torch.randn(n, 2, generator=torch.Generator().manual_seed(n)) for n in (3, 5, 2)]

    def bad_items(self) -> dict[str, Tensor]:
        return {"not finite": torch.full((3, 2), torch.nan), "one number": torch.zeros(3)}

    def same(self, item: Tensor, decoded: Tensor) -> bool:
        return torch.equal(item, decoded)


class Anisotropic(Net):
    def forward(self, x: Tensor, *others: Any) -> Tensor:
        return super().forward(x * x.new_tensor([1.0, 2.0]), *others)


class SeesPadding(Net):
    def forward(self, x: Tensor, s: Tensor, t: Tensor, condition: Any, mask: Tensor) -> Tensor:
        return super().forward(x, s, t, condition, torch.ones_like(mask)) * mask[..., None]


class Lossy(Points):
    def decode(self, batch: Batch) -> list[Tensor]:
        return [x + 1 for x in super().decode(batch)]


class Credulous(Points):
    def collate(self, items: Any) -> Batch:
        return super().collate([i.nan_to_num() if i.dim() == 2 else i[:, None].expand(-1, 2) for i in items])


@pytest.mark.parametrize(
    ("part", "test"),
    [
        (Anisotropic, "test_symmetries"),
        (SeesPadding, "test_a_batch_gives_what_its_members_give_alone"),
        (Lossy, "test_objects_come_back_from_their_states"),
        (Credulous, "test_bad_items_are_refused_in_one_line"),
    ],
)
def test_a_broken_promise_is_caught(part: Any, test: str) -> None:
    class Broken(TestPoints):
        def make(self) -> Any:
            domain = part() if issubclass(part, Points) else Points()
            if not issubclass(part, Points):
                domain.network = lambda size=None: part()
            return domain

    arguments = [torch.float64] if test in ("test_symmetries", "test_a_batch_gives_what_its_members_give_alone") else []
    getattr(TestPoints(), test)(*arguments)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        getattr(Broken(), test)(*arguments)
