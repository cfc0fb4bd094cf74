"""A diagonal state-space layer for long one-dimensional fields: global reach at L log L (Gu et al. 2022, S4D)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class StateSpace(nn.Module):
    """Channels `[B, L, C]` through C linear recurrences of `states` complex modes each, forward and backward.

    h_k = exp(dt A) h_{k-1} + B u_k, y_k = Re C h_k, as one convolution by FFT; A = -1/2 + i pi n at birth (S4D-Lin).
    Padding must be zero at the end.
    """

    def __init__(self, channels: int, states: int = 16, both_ways: bool = True) -> None:
        super().__init__()
        self.both_ways = both_ways
        directions = 2 if both_ways else 1
        step = torch.exp(torch.linspace(math.log(1e-3), math.log(1e-1), channels))
        self.log_step = nn.Parameter(step.log().repeat(directions, 1))
        self.log_decay = nn.Parameter(torch.full((directions, channels, states), math.log(0.5)))
        self.frequency = nn.Parameter((math.pi * torch.arange(states)).expand(directions, channels, states).clone())
        self.read = nn.Parameter(torch.randn(directions, channels, states, 2) * (0.5 / states) ** 0.5)
        self.skip = nn.Parameter(torch.ones(channels))

    def kernel(self, length: int) -> Tensor:
        """2 Re sum_n C_n B_n exp(l dt A_n), B the exact discretisation of a unit input: `[directions, C, length]`."""
        a = torch.complex(-self.log_decay.exp(), self.frequency)
        da = a * self.log_step.exp()[..., None]
        gain = torch.view_as_complex(self.read) * (da.exp() - 1) / a
        times = torch.arange(length, device=da.device, dtype=da.real.dtype)
        return 2 * torch.einsum("dcn,dcnl->dcl", gain, (da[..., None] * times).exp()).real

    def forward(self, u: Tensor) -> Tensor:
        length = u.shape[1]
        k = self.kernel(length).to(u.dtype)
        x = u.transpose(1, 2)
        y = convolve(x, k[0])
        if self.both_ways:
            y = y + convolve(x.flip(-1), k[1]).flip(-1)
        return (y + self.skip[:, None] * x).transpose(1, 2)


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Causal convolution along the last dimension by FFT: `[B, C, L]` with `[C, L]`."""
    n = 2 * x.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(x, n) * torch.fft.rfft(kernel, n), n)[..., : x.shape[-1]]
