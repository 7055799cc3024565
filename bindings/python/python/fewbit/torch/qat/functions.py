"""Fake quantization of one tensor as one function of autograd: on the CPU one pass of the native half, elsewhere torch's operations."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewbit import _fewbit
from fewbit.threads import resolve_threads
from fewbit.torch.qat import formulas

# Not typed in torch.
_Function: Any = torch.autograd.Function


def is_native(x: Tensor) -> bool:
    """Whether the native half reads this tensor's memory."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def flat(x: Tensor) -> NDArray[numpy.float32]:
    """The elements of a tensor on the CPU, in order."""
    found: NDArray[numpy.float32] = x.detach().to(torch.float32).contiguous().reshape(-1).numpy()
    return found


class _StraightThrough(_Function):  # type: ignore[misc]
    """``quantize(x)``, with the gradient of ``x``: for ranges that hold all of ``x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, quantize: Callable[[Tensor], Tensor]) -> Tensor:
        return quantize(x.detach())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        return gradient, None


class _Groups(_Function):  # type: ignore[misc]
    """Codes with given scales; the gradient passes where nothing is clipped, and scales may have one, too."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, scales: Tensor, zero_points: Tensor | None, group_size: int, bits: int, factor: float) -> Tensor:
        ctx.save_for_backward(matrix, scales, zero_points)
        ctx.group_size, ctx.bits, ctx.factor = group_size, bits, factor
        if not is_native(matrix):
            return formulas.groups(matrix.float(), group_size, scales, zero_points, bits).to(matrix.dtype)
        out = torch.empty(matrix.shape, dtype=torch.float32)
        _fewbit.fake_quantize_groups(
            flat(matrix), group_size, flat(scales), _points(zero_points), out.view(-1).numpy(), bits=bits, threads=resolve_threads(None)
        )
        return out.to(matrix.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        matrix, scales, zero_points = ctx.saved_tensors
        if is_native(matrix):
            out = torch.empty(matrix.shape, dtype=torch.float32)
            of_scales = torch.empty(scales.shape, dtype=torch.float32)
            _fewbit.fake_quantize_gradients(
                flat(matrix),
                flat(gradient),
                ctx.group_size,
                flat(scales),
                _points(zero_points),
                out.view(-1).numpy(),
                of_scales.view(-1).numpy(),
                bits=ctx.bits,
                threads=resolve_threads(None),
            )
        else:
            out, of_scales = formulas.group_gradients(matrix.float(), gradient.float(), ctx.group_size, scales, zero_points, ctx.bits)
        learned = of_scales * ctx.factor if ctx.needs_input_grad[1] else None
        return out.to(matrix.dtype), learned, None, None, None, None


class _OneScale(_Function):  # type: ignore[misc]
    """Inputs with a static range; the gradient passes where nothing is clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        out, passes = _one_scale(x, scale, zero_point)
        ctx.save_for_backward(passes)
        return out.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (passes,) = ctx.saved_tensors
        return gradient * passes, None, None


class _LearnedScale(_Function):  # type: ignore[misc]
    """Inputs with a static range whose scale and zero point have gradients, too; those of the inputs pass where nothing is clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, used_scale: Tensor, used_zero_point: Tensor, factor: float) -> Tensor:
        out, passes = _one_scale(x, used_scale, used_zero_point)
        ctx.save_for_backward(x, out, passes, scale, used_scale)
        ctx.factor = factor
        return out.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, out, passes, scale, used_scale = ctx.saved_tensors
        given = gradient * passes
        if ctx.factor == 0:
            return given, torch.zeros_like(scale), torch.zeros_like(scale), None, None, None
        # In steps of the scale: what rounding adds where nothing is clipped, else the codes less the zero point, which that moves as well.
        of_scale = ((gradient * out).sum() - (given * x).sum()) / used_scale
        of_zero_point = -(gradient - given).sum() * used_scale
        return given, of_scale * scale.sign() * ctx.factor, of_zero_point * ctx.factor, None, None, None


def _one_scale(x: Tensor, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
    """Values, float32, and where the gradient passes."""
    if not is_native(x):
        return formulas.one_scale(x.float(), scale, zero_point)
    out = torch.empty(x.shape, dtype=torch.float32)
    passes = torch.empty(x.shape, dtype=torch.uint8)
    _fewbit.fake_quantize_static(
        flat(x), float(scale), int(zero_point), out.view(-1).numpy(), passes.view(-1).numpy(), threads=resolve_threads(None)
    )
    return out, passes


def _points(zero_points: Tensor | None) -> NDArray[numpy.int8] | None:
    return None if zero_points is None else zero_points.detach().contiguous().reshape(-1).numpy()


def int8_rows(matrix: Tensor) -> Tensor:
    """What int8 codes of ``matrix`` (rows, columns) stand for, each row with the scale absmax / 127.5."""
    result: Tensor = _StraightThrough.apply(matrix, _int8_rows)
    return result


def _int8_rows(matrix: Tensor) -> Tensor:
    if not is_native(matrix):
        return formulas.int8_rows(matrix.float()).to(matrix.dtype)
    rows, columns = matrix.shape
    out = torch.empty((rows, columns), dtype=torch.float32)
    scales = numpy.empty(rows if columns else 0, dtype=numpy.float32)
    _fewbit.fake_quantize_int8_rows(flat(matrix), columns, out.view(-1).numpy(), scales, threads=resolve_threads(None))
    return out.to(matrix.dtype)


def groups(matrix: Tensor, scales: Tensor, zero_points: Tensor | None, *, group_size: int, bits: int, factor: float = 1.0) -> Tensor:
    """What codes of ``matrix`` (rows, columns) stand for with ``scales`` and ``zero_points`` (rows, groups).

    Args:
        matrix: The weight.
        scales: float32; where they want a gradient they get it.
        zero_points: int8; ``None``: all are 0.
        group_size: Columns of a group.
        bits: 4 or 8.
        factor: What the gradients of scales are multiplied by.
    """
    result: Tensor = _Groups.apply(matrix, scales, zero_points, group_size, bits, factor)
    return result


def nf4_blocks(matrix: Tensor, *, block_size: int, double_quant: bool) -> Tensor:
    """What NF4 codes of the flattened ``matrix`` stand for."""

    def quantize(values: Tensor) -> Tensor:
        if not is_native(values):
            return formulas.nf4_blocks(values.float(), block_size, double_quant=double_quant).to(values.dtype)
        threads = resolve_threads(None)
        packed, absmax = _fewbit.quantize_four_bit(flat(values), kind="nf4", block_size=block_size, threads=threads)
        if double_quant:
            absmax = _fewbit.dequantize_absmax(*_fewbit.quantize_absmax(absmax))
        out = _fewbit.dequantize_four_bit(packed, absmax, kind="nf4", block_size=block_size, elements=values.numel(), threads=threads)
        return torch.from_numpy(out).reshape(values.shape).to(values.dtype)

    result: Tensor = _StraightThrough.apply(matrix, quantize)
    return result


def token_rows(x: Tensor, *, bits: int) -> Tensor:
    """What affine codes of ``bits`` bits of the rows of ``x`` (..., columns) stand for, each row with its own range."""

    def quantize(values: Tensor) -> Tensor:
        if not is_native(values):
            return formulas.token_rows(values.float(), bits).to(values.dtype)
        out = torch.empty(values.shape, dtype=torch.float32)
        _fewbit.fake_quantize_rows(flat(values), values.shape[-1], out.view(-1).numpy(), bits=bits, threads=resolve_threads(None))
        return out.to(values.dtype)

    result: Tensor = _StraightThrough.apply(x, quantize)
    return result


def one_scale(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """What signed codes of 8 bits of ``x`` stand for with one scale and zero point, both float32."""
    result: Tensor = _OneScale.apply(x, scale, zero_point)
    return result


def learned_scale(x: Tensor, scale: Tensor, zero_point: Tensor, used_scale: Tensor, used_zero_point: Tensor, *, factor: float) -> Tensor:
    """The same with a scale and a zero point that are parameters.

    Args:
        x: The inputs.
        scale: The parameter, whose sign means nothing.
        zero_point: The parameter that is rounded.
        used_scale: Its absolute value.
        used_zero_point: The whole number.
        factor: What the gradients of both are multiplied by.
    """
    result: Tensor = _LearnedScale.apply(x, scale, zero_point, used_scale, used_zero_point, factor)
    return result
