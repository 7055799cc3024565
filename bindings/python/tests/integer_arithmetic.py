"""The arithmetic of docs/numerics.md in torch's integers, by which the native layers are judged bit by bit."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_SCALE = 2.0**-23


def weight_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (rows, columns) and scales (rows) of a weight (rows, columns): absmax / 127.5 of each row."""
    absmax = weight.abs().amax(dim=1)
    scales = torch.where(absmax == 0, LEAST_SCALE, absmax / 127.5)
    return (weight * (1 / scales).unsqueeze(1)).round().clamp(-128, 127), scales


def token_codes(x: Tensor, largest: int = 255) -> tuple[Tensor, Tensor, Tensor]:
    """Codes minus zero points (rows, columns), scales and zero points (rows) of inputs, each row with its own range."""
    least, greatest = x.amin(dim=1).clamp(max=0), x.amax(dim=1).clamp(min=0)
    scales = ((greatest - least) / largest).clamp(min=LEAST_SCALE)
    zeros = (-(least / scales).round()).clamp(0, largest)
    return fixed_codes(x, scales.unsqueeze(1), zeros.unsqueeze(1), 0, largest), scales, zeros


def fixed_codes(x: Tensor, scale: Tensor, zero: Tensor, least: int, largest: int) -> Tensor:
    """Codes minus the zero point."""
    return torch.maximum(torch.minimum((x * (1 / scale)).round(), largest - zero), least - zero)


def product(codes: Tensor, scales: Tensor, weight: Tensor, weight_scales: Tensor, bias: Tensor | None) -> Tensor:
    """``fma(float32(sum of products), scale * weight scale, bias)``: sums are exact in float64, and so are products of two float32."""
    sums = (codes.double() @ weight.double().t()).float().double()
    multipliers = (scales.unsqueeze(1) * weight_scales.unsqueeze(0)).double()
    return (sums * multipliers + (0 if bias is None else bias.double())).float()


def dynamic_linear(x: Tensor, weight: Tensor, bias: Tensor | None, largest: int = 255) -> Tensor:
    """A linear layer of int8 weights whose inputs (rows, in) are quantized row by row."""
    codes, scales, _ = token_codes(x, largest)
    return product(codes, scales, *weight_codes(weight), bias)


def static_linear(x: Tensor, weight: Tensor, bias: Tensor | None, scale: float, zero_point: int) -> Tensor:
    """A linear layer of int8 weights whose inputs have one scale and zero point, of signed codes."""
    scale_tensor = torch.tensor(scale, dtype=torch.float32)
    codes = fixed_codes(x, scale_tensor, torch.tensor(float(zero_point)), -128, 127)
    return product(codes, scale_tensor.expand(len(x)), *weight_codes(weight), bias)
