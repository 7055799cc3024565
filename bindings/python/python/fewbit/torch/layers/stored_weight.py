"""The weight of a quantized layer: its codes and scales, and what is made of them."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewbit import _fewbit
from fewbit._fewbit import FewbitError
from fewbit.threads import resolve_threads

#: How the inputs of an int8 layer are quantized: a word, or a scale, a zero point and whether codes have 7 bits.
Activations = str | tuple[float, int, bool]

_FLOATS = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Int8Weight:
    """int8 codes with a scale for each row.

    Attributes:
        codes: (rows, columns), int8; a row is one output channel, or one row of an embedding table.
        scales: (rows), float32.
    """

    codes: Tensor
    scales: Tensor

    @staticmethod
    def of(weight: Tensor, *, per_tensor: bool) -> Int8Weight:
        """Quantizes ``weight`` (rows, columns), with a scale for each row or with one."""
        codes, scales = _fewbit.quantize_int8(_floats(weight), per_tensor=per_tensor, threads=resolve_threads(None))
        return Int8Weight(torch.from_numpy(codes), torch.from_numpy(scales))

    @property
    def device(self) -> torch.device:
        return self.codes.device

    def matrix(self) -> Tensor:
        """The float matrix (rows, columns), float32."""
        return torch.from_numpy(_fewbit.dequantize_int8(self.codes.numpy(), self.scales.numpy(), threads=resolve_threads(None)))

    def parts(self, activations: Activations, order: Callable[[Tensor], Tensor]) -> Any:
        """What the native layer is made of; ``order`` brings the columns of a matrix into the layer's order."""
        return self.codes_in(order).numpy(), self.scales.numpy(), activations

    def codes_in(self, order: Callable[[Tensor], Tensor]) -> Tensor:
        return order(self.codes).contiguous()

    def tensors(self) -> dict[str, Tensor]:
        """What a ``state_dict`` holds. Codes are flat: a float layer that is given them finds the wrong shape and says so."""
        return {"weight": self.codes.reshape(-1), "weight_scale": self.scales}


@dataclass(frozen=True)
class Int4Weight:
    """int4 codes with a scale, and perhaps a zero point, for each group of columns.

    Attributes:
        packed: Two codes a byte, uint8: the first of a pair in the low bits.
        scales: (rows, groups), float32.
        zero_points: (rows, groups), int8; ``None`` where all are 0.
        columns: Columns of the matrix.
    """

    packed: Tensor
    scales: Tensor
    zero_points: Tensor | None
    columns: int

    @staticmethod
    def of_codes(codes: Tensor, scales: Tensor, zero_points: Tensor | None) -> Int4Weight:
        """Of codes (rows, columns), int8, from -8 to 7."""
        flat = codes.reshape(-1)
        if flat.numel() % 2:
            flat = torch.cat([flat, flat.new_zeros(1)])
        nibbles = (flat & 15).to(torch.uint8)
        return Int4Weight(nibbles[::2] | (nibbles[1::2] << 4), scales, zero_points, codes.shape[1])

    @property
    def codes(self) -> Tensor:
        """(rows, columns), int8, from -8 to 7."""
        nibbles = torch.stack([self.packed & 15, self.packed >> 4], dim=1).reshape(-1).to(torch.int8)
        signed = torch.where(nibbles > 7, nibbles - 16, nibbles)
        rows = self.scales.shape[0]
        return signed[: rows * self.columns].reshape(rows, self.columns)

    @property
    def device(self) -> torch.device:
        return self.packed.device

    def matrix(self) -> Tensor:
        """The float matrix (rows, columns), float32."""
        rows, groups = self.scales.shape
        codes = self.codes.reshape(rows, groups, -1).to(torch.int16)
        if self.zero_points is not None:
            codes = codes - self.zero_points.unsqueeze(2)
        return (codes.to(torch.float32) * self.scales.unsqueeze(2)).reshape(rows, self.columns)

    def parts(self, activations: Activations, order: Callable[[Tensor], Tensor]) -> Any:
        """What the native layer is made of."""
        points = None if self.zero_points is None else self.zero_points.contiguous().numpy()
        return self.codes.contiguous().numpy(), self.scales.contiguous().numpy(), points, activations

    def tensors(self) -> dict[str, Tensor]:
        """What a ``state_dict`` holds."""
        found = {"weight": self.packed, "weight_scale": self.scales}
        if self.zero_points is not None:
            found["weight_zero_point"] = self.zero_points
        return found


@dataclass(frozen=True)
class HalfWeight:
    """16-bit floats (rows, columns)."""

    values: Tensor

    @staticmethod
    def of(weight: Tensor, kind: str) -> HalfWeight:
        """Rounds ``weight`` (rows, columns) to ``fp16`` or ``bf16``."""
        _expect_finite(weight)
        values = weight.detach().to(_FLOATS[kind], copy=True).contiguous()
        if not bool(torch.isfinite(values).all()):
            raise FewbitError(
                f"weight: expected numbers that {kind} has, found {float(weight.detach().abs().max()):g}\n  hint: bf16 has the range of float32"
            )
        return HalfWeight(values)

    @property
    def device(self) -> torch.device:
        return self.values.device

    def matrix(self) -> Tensor:
        return self.values.float()

    def parts(self, activations: Activations, order: Callable[[Tensor], Tensor]) -> Any:
        kind = "fp16" if self.values.dtype == torch.float16 else "bf16"
        return order(self.values).contiguous().view(torch.int16).numpy(), kind

    def tensors(self) -> dict[str, Tensor]:
        return {"weight": self.values.reshape(-1)}

    def to(self, device: torch.device) -> HalfWeight:
        return HalfWeight(self.values.to(device))


@dataclass(frozen=True)
class FourBitWeight:
    """4-bit codes of the flattened weight in blocks, as bitsandbytes packs them.

    Attributes:
        packed: Two codes a byte, uint8.
        absmax: The absmax of each block, float32; of doubly quantized ones what their codes stand for.
        nested: The 8-bit codes of the absmax values, their nested absmax values and offset, with double quantization.
        kind: ``nf4`` or ``fp4``.
        block_size: Elements that share an absmax.
        dtype: What values are rounded to: ``fp32``, ``fp16`` or ``bf16``.
        shape: (rows, columns)
    """

    packed: Tensor
    absmax: Tensor
    nested: tuple[Tensor, Tensor, float] | None
    kind: str
    block_size: int
    dtype: str
    shape: tuple[int, int]

    @staticmethod
    def of(weight: Tensor, *, kind: str, block_size: int, double_quant: bool) -> FourBitWeight:
        """Quantizes ``weight`` (rows, columns)."""
        dtype = {torch.float16: "fp16", torch.bfloat16: "bf16"}.get(weight.dtype, "fp32")
        packed, absmax = _fewbit.quantize_four_bit(_floats(weight.reshape(-1)), kind=kind, block_size=block_size, threads=resolve_threads(None))
        nested = None
        if double_quant:
            codes, nested_absmax, offset = _fewbit.quantize_absmax(absmax)
            absmax = _fewbit.dequantize_absmax(codes, nested_absmax, offset)
            nested = (torch.from_numpy(codes), torch.from_numpy(nested_absmax), offset)
        rows, columns = weight.shape
        return FourBitWeight(torch.from_numpy(packed), torch.from_numpy(absmax), nested, kind, block_size, dtype, (rows, columns))

    @property
    def device(self) -> torch.device:
        return self.packed.device

    def matrix(self) -> Tensor:
        rows, columns = self.shape
        values = torch.from_numpy(
            _fewbit.dequantize_four_bit(
                self.packed.numpy(), self.absmax.numpy(), kind=self.kind, block_size=self.block_size, elements=rows * columns, threads=resolve_threads(None)
            )
        )
        rounded = values.to(_FLOATS[self.dtype]).float() if self.dtype in _FLOATS else values
        return rounded.reshape(self.shape)

    def parts(self, activations: Activations, order: Callable[[Tensor], Tensor]) -> Any:
        return self.packed.numpy(), self.absmax.numpy(), self.kind, self.block_size, self.dtype

    def tensors(self) -> dict[str, Tensor]:
        if self.nested is None:
            return {"weight": self.packed, "weight_absmax": self.absmax}
        codes, nested_absmax, offset = self.nested
        return {
            "weight": self.packed,
            "weight_absmax": codes,
            "weight_nested_absmax": nested_absmax,
            "weight_nested_offset": torch.tensor([offset], dtype=torch.float32, device="cpu"),
        }


StoredWeight = Int8Weight | Int4Weight | HalfWeight | FourBitWeight


def describe(weight: StoredWeight) -> dict[str, Any]:
    """What :func:`restore` needs beside the tensors."""
    if isinstance(weight, Int8Weight):
        return {"format": "int8", "matrix": list(weight.codes.shape)}
    if isinstance(weight, Int4Weight):
        shape = [weight.scales.shape[0], weight.columns]
        return {"format": "int4", "matrix": shape, "groups": weight.scales.shape[1], "asymmetric": weight.zero_points is not None}
    if isinstance(weight, HalfWeight):
        kind = "fp16" if weight.values.dtype == torch.float16 else "bf16"
        return {"format": kind, "matrix": list(weight.values.shape)}
    return {"format": weight.kind, "matrix": list(weight.shape), "block_size": weight.block_size, "dtype": weight.dtype}


def restore(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> StoredWeight:
    """The weight that :func:`describe` and ``tensors()`` were asked of.

    Raises:
        FewbitError: A tensor is missing, or has another dtype or number of elements than the description says.
    """
    kind, (rows, columns) = description["format"], description["matrix"]
    elements = rows * columns

    def tensor(name: str, dtype: torch.dtype, count: int) -> Tensor:
        found = tensors.get(name)
        if found is None:
            raise FewbitError(f"{name}: expected a tensor of {count} elements, found none\n  hint: the file is not whole")
        if found.dtype != dtype or found.numel() != count:
            raise FewbitError(f"{name}: expected {count} elements of {dtype}, found {found.numel()} of {found.dtype}")
        return found.detach().to("cpu").contiguous().reshape(-1)

    if kind == "int8":
        codes = tensor("weight", torch.int8, elements).reshape(rows, columns)
        return Int8Weight(codes, tensor("weight_scale", torch.float32, rows))
    if kind == "int4":
        number = int(description["groups"])
        scales = tensor("weight_scale", torch.float32, rows * number).reshape(rows, number)
        points = tensor("weight_zero_point", torch.int8, rows * number).reshape(rows, number) if description["asymmetric"] else None
        return Int4Weight(tensor("weight", torch.uint8, -(-elements // 2)), scales, points, columns)
    if kind in _FLOATS:
        return HalfWeight(tensor("weight", _FLOATS[kind], elements).reshape(rows, columns))
    if kind not in ("nf4", "fp4"):
        raise FewbitError(f"format: expected int8, int4, fp16, bf16, nf4 or fp4, found {kind!r}\n  hint: a newer fewbit may have written it")
    block_size = int(description["block_size"])
    packed, blocks = tensor("weight", torch.uint8, -(-elements // 2)), -(-elements // block_size)
    nested = None
    if "weight_nested_absmax" in tensors:
        codes = tensor("weight_absmax", torch.uint8, blocks)
        nested_absmax = tensor("weight_nested_absmax", torch.float32, -(-blocks // 256))
        offset = float(tensor("weight_nested_offset", torch.float32, 1)[0])
        absmax = torch.from_numpy(_fewbit.dequantize_absmax(codes.numpy(), nested_absmax.numpy(), offset))
        nested = (codes, nested_absmax, offset)
    else:
        absmax = tensor("weight_absmax", torch.float32, blocks)
    return FourBitWeight(packed, absmax, nested, kind, block_size, description["dtype"], (rows, columns))


def _floats(weight: Tensor) -> NDArray[numpy.float32]:
    values: NDArray[numpy.float32] = weight.detach().to(torch.float32).contiguous().numpy()
    return values


def _expect_finite(weight: Tensor) -> None:
    finite = torch.isfinite(weight.detach())
    if not bool(finite.all()):
        index = int((~finite.reshape(-1)).nonzero()[0])
        raise FewbitError(f"weight, element {index}: expected a finite number, found {float(weight.detach().reshape(-1)[index])}")
