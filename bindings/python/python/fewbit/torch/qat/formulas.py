"""The formulas of docs/numerics.md in torch's operations, for tensors on devices that the native half does not reach.

They have the bits of the native functions: no operation is fused with another, and each rounds once.
"""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from functools import cache

import numpy
import torch
from torch import Tensor

from fewbit import _fewbit

#: The least scale of inputs, and that of a weight's row of zeros: 2^-23.
LEAST_SCALE = 2.0**-23
_LEAST_NORMAL = torch.finfo(torch.float32).tiny
_LEAST_ABSMAX = 1e-38


def int8_rows(matrix: Tensor) -> Tensor:
    """What int8 codes of a float32 ``matrix`` (rows, columns) stand for, each row with the scale absmax / 127.5."""
    if matrix.shape[1] == 0:
        return matrix.clone()
    absmax = matrix.abs().amax(dim=1)
    scales = torch.where(absmax == 0, LEAST_SCALE, (absmax / 127.5).clamp(min=_LEAST_NORMAL))
    return groups(matrix, matrix.shape[1], scales, None, 8)


def bounds(bits: int) -> tuple[int, int]:
    """The least and the greatest signed code."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def groups(matrix: Tensor, group_size: int, scales: Tensor, zero_points: Tensor | None, bits: int) -> Tensor:
    """What signed codes of ``bits`` bits of a float32 matrix stand for, with scales and zero points of its groups of columns."""
    steps, low, high = _steps(matrix, group_size, scales, zero_points, bits)
    codes = torch.minimum(torch.maximum(steps.round(), low), high)
    # Adding 0 makes 0 of -0.
    return ((codes + 0.0) * scales.reshape(-1, 1)).reshape(matrix.shape)


def group_gradients(
    matrix: Tensor, gradient: Tensor, group_size: int, scales: Tensor, zero_points: Tensor | None, bits: int
) -> tuple[Tensor, Tensor]:
    """The gradients of the matrix (straight through, where it was not clipped) and of the scales."""
    steps, low, high = _steps(matrix, group_size, scales, zero_points, bits)
    passes = (steps >= low - 0.5) & (steps <= high + 0.5)
    codes = torch.minimum(torch.maximum(steps.round(), low), high)
    given = gradient.reshape(-1, group_size)
    of_scales = (given * torch.where(passes, codes - steps, codes)).sum(dim=1)
    return (given * passes).reshape(matrix.shape), of_scales.reshape(scales.shape)


def _steps(matrix: Tensor, group_size: int, scales: Tensor, zero_points: Tensor | None, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Elements in steps of their scales, and the codes less the zero points between which they are."""
    low, high = bounds(bits)
    zeros = torch.zeros_like(scales) if zero_points is None else zero_points.to(torch.float32)
    steps = matrix.reshape(-1, group_size) * (1.0 / scales.reshape(-1, 1))
    return steps, low - zeros.reshape(-1, 1), high - zeros.reshape(-1, 1)


def affine_parameters(least: Tensor, greatest: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Scale and zero point, both float32, of ranges that are extended to zero, for the codes ``low`` to ``high``."""
    least, greatest = least.clamp(max=0), greatest.clamp(min=0)
    width = greatest - least
    steps = float(high - low)
    scale = torch.where(torch.isinf(width), greatest / steps - least / steps, width / steps).clamp(min=LEAST_SCALE)
    return scale, (low - (least / scale).round()).clamp(low, high)


def token_rows(x: Tensor, bits: int) -> Tensor:
    """What affine codes of float32 rows (..., columns) stand for, each row with its own range."""
    if x.numel() == 0:
        return x.clone()
    high = 2**bits - 1
    scale, zero = affine_parameters(x.amin(dim=-1, keepdim=True), x.amax(dim=-1, keepdim=True), 0, high)
    codes = torch.minimum(torch.maximum((x * (1.0 / scale)).round(), -zero), high - zero)
    return (codes + 0.0) * scale


def one_scale(x: Tensor, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
    """What signed codes of 8 bits of ``x``, float32, stand for, and where the gradient passes."""
    steps = x * (1.0 / scale)
    low, high = -128 - zero_point, 127 - zero_point
    codes = torch.minimum(torch.maximum(steps.round(), low), high)
    return (codes + 0.0) * scale, (steps >= low - 0.5) & (steps <= high + 0.5)


def nf4_blocks(values: Tensor, block_size: int, *, double_quant: bool) -> Tensor:
    """What NF4 codes of the flattened ``values``, float32, stand for, in blocks that each have an absmax."""
    table = torch.from_numpy(_nf4_table()).to(values.device)
    thresholds = (table[:-1] + table[1:]) / 2
    flat = values.reshape(-1)
    whole = flat.numel() // block_size * block_size
    blocks = flat[:whole].reshape(-1, block_size)
    absmax = blocks.abs().amax(dim=1) if whole else flat.new_empty(0)
    parts = [(blocks * (1.0 / absmax.clamp(min=_LEAST_ABSMAX)).unsqueeze(1)).reshape(-1)]
    if whole < flat.numel():
        last = flat[whole:].abs().amax().clamp(min=_LEAST_ABSMAX).reshape(1)
        parts.append(flat[whole:] / last)
        absmax = torch.cat([absmax, last])
    codes = torch.bucketize(torch.cat(parts), thresholds)
    if double_quant:
        # A value for each block: what little there is goes to the CPU and back.
        on_cpu = _fewbit.dequantize_absmax(*_fewbit.quantize_absmax(absmax.detach().cpu().numpy()))
        absmax = torch.from_numpy(on_cpu).to(values.device)
    each = absmax.repeat_interleave(block_size)[: flat.numel()]
    return (table[codes] * each).reshape(values.shape)


@cache
def _nf4_table() -> numpy.ndarray[tuple[int], numpy.dtype[numpy.float32]]:
    """The 16 values, ascending, as the native half has them."""
    packed = numpy.array([(2 * index << 4) | (2 * index + 1) for index in range(8)], dtype=numpy.uint8)
    absmax = numpy.ones(1, dtype=numpy.float32)
    table = _fewbit.dequantize_four_bit(packed, absmax, kind="nf4", block_size=32, elements=16, threads=1)
    return table.reshape(16)
