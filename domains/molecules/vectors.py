"""Vectors of three numbers for compiled functions: as tuples, which compile in half the time that arrays take."""

from __future__ import annotations

import math

import numpy as np

from .compiled import compiled

Vector = tuple[float, float, float]
X_AXIS = (1.0, 0.0, 0.0)


@compiled
def at(x: np.ndarray, i: int) -> Vector:
    return x[i, 0], x[i, 1], x[i, 2]


@compiled
def put(x: np.ndarray, i: int, v: Vector) -> None:
    x[i, 0], x[i, 1], x[i, 2] = v


@compiled
def times(a: float, u: Vector) -> Vector:
    return a * u[0], a * u[1], a * u[2]


@compiled
def plus(u: Vector, a: float, v: Vector) -> Vector:
    """u + a v."""
    return u[0] + a * v[0], u[1] + a * v[1], u[2] + a * v[2]


@compiled
def dot(u: Vector, v: Vector) -> float:
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


@compiled
def cross(u: Vector, v: Vector) -> Vector:
    return u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]


@compiled
def unit(v: Vector, fallback: Vector) -> Vector:
    """The direction of a vector; that of another, or any, where it has none."""
    for _ in range(2):
        length = math.sqrt(dot(v, v))
        if length > 1e-3:
            return times(1 / length, v)
        v = fallback
    return X_AXIS


@compiled
def between(u: Vector, v: Vector) -> float:
    """The angle of two directions, degrees."""
    return math.degrees(math.acos(min(max(dot(u, v), -1.0), 1.0)))


@compiled
def normal_to(axis: Vector) -> Vector:
    """Any unit vector normal to `axis`."""
    x, y, z = abs(axis[0]), abs(axis[1]), abs(axis[2])
    if x <= y and x <= z:
        return unit(cross(axis, (1.0, 0.0, 0.0)), X_AXIS)
    return unit(cross(axis, (0.0, 1.0, 0.0) if y <= z else (0.0, 0.0, 1.0)), X_AXIS)
