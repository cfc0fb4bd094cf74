"""The rows' algebra: diagonal limits, inverses, held fields, refusals."""

from __future__ import annotations

import pytest
import torch

from sciconsist.geometry import Euclidean, Simplex, Torus
from sciconsist.parametrisations import Parametrisation
from sciconsist.paths import VP, Linear, Path
from tests.core.exact_maps import column

KINDS = ("preconditioned", "velocity", "endpoint")


def draw(generator: torch.Generator, count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    x, f = torch.randn(2, count, 3, generator=generator, dtype=torch.float64)
    return x, f


@pytest.mark.parametrize("kind", KINDS)
def test_diagonal_is_the_limit(path: Path, kind: str, generator: torch.Generator) -> None:
    row = Parametrisation(kind, path, Euclidean(), 0.6)
    x, f = draw(generator)
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    v = row.velocity(x, f, t, None)
    assert torch.equal(row.average(x, f, t, t, None), v)
    errors = [(row.average(x, f, t, t - h, None) - v).abs().max().item() for h in (1e-3, 1e-4)]
    assert errors[1] < 1e-10 or 8 < errors[0] / errors[1] < 12  # first order in the gap


@pytest.mark.parametrize("kind", KINDS)
def test_average_and_target_invert_each_other(path: Path, kind: str, generator: torch.Generator) -> None:
    row = Parametrisation(kind, path, Euclidean(), 0.6)
    x, f = draw(generator)
    s = column(0.3, 0.5, 0.7, 0.9, 0.4, 1.0)
    t = column(0.0, 0.2, 0.7, 0.1, 0.4, 0.0)  # two on the diagonal
    u = row.average(x, f, s, t, None)
    assert torch.allclose(row.target(x, u, s, t), f, atol=1e-9)
    assert torch.allclose(row.jump(x, f, s, t, None), x + (t - s)[:, None] * u, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_boundary_is_exact(path: Path, kind: str, dtype: torch.dtype, generator: torch.Generator) -> None:
    """X_{t,t}(x) = x, to the last bit at t = 0, where a field is given."""
    row = Parametrisation(kind, path, Euclidean(), 0.7)
    x, f = (v.to(dtype) for v in draw(generator))
    zero = torch.zeros(6, dtype=dtype)
    assert torch.equal(row.jump(x, f, zero, zero, None), x)
    t = torch.linspace(0.05, 1.0, 6, dtype=dtype)
    assert torch.allclose(row.jump(x, f, t, t, None), x, atol=1e-6 if dtype == torch.float32 else 1e-14)


def test_a_given_endpoint_field_has_no_velocity_and_no_target() -> None:
    row = Parametrisation("endpoint", Linear(), Simplex())
    x, f, zero = torch.rand(2, 3), torch.rand(2, 3), torch.zeros(2)
    assert torch.equal(row.velocity(x, f, zero, None), torch.zeros_like(x))
    assert torch.equal(row.target(x, f, zero, zero), torch.zeros_like(x))


def test_endpoint_at_zero_returns_f(path: Path, generator: torch.Generator) -> None:
    x, f = draw(generator)
    row = Parametrisation("endpoint", path, Euclidean())
    s = torch.linspace(0.1, 1.0, 6, dtype=torch.float64)
    assert torch.allclose(row.jump(x, f, s, torch.zeros_like(s), None), f)


def test_endpoint_coefficients_sum_to_one_on_linear_only() -> None:
    s, t = column(0.8), column(0.3)
    a, b = Parametrisation("endpoint", Linear(), Euclidean()).coefficients(s, t)
    assert abs((a + b).item() - 1) < 1e-15
    a, b = Parametrisation("endpoint", VP(), Euclidean()).coefficients(s, t)
    assert abs((a + b).item() - 1) > 0.05


@pytest.mark.parametrize(
    ("kind", "geometry"),
    [("endpoint", Torus()), ("preconditioned", Torus()), ("velocity", Simplex()), ("score", Euclidean())],
)
def test_meaningless_rows_are_refused(kind: str, geometry: object) -> None:
    with pytest.raises(ValueError, match="parametrisation"):
        Parametrisation(kind, Linear(), geometry)  # type: ignore[arg-type]
