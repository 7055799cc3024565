"""Fake quantization of weights."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewbit import _fewbit
from fewbit.threads import resolve_threads
from fewbit.torch.layers.stored_weight import FourBitWeight, Int4Weight, Int8Weight, StoredWeight
from fewbit.torch.qat import functions
from fewbit.torch.qat.config import WeightScheme
from fewbit.torch.qat.formulas import bounds
from fewbit.torch.qat.functions import flat
from fewbit.torch.qat.switches import FakeQuantize


class WeightFakeQuantize(FakeQuantize):
    """What codes of a weight (rows, columns) stand for, in the place of the weight.

    Attributes:
        is_by_row: Whether the codes of a row of a table follow from this row alone.
    """

    is_by_row = True

    def forward(self, matrix: Tensor) -> Tensor:
        """The values of the codes, with the dtype of ``matrix``; the matrix itself while fake quantization is off.

        Raises:
            FewbitError: On the CPU, a weight that is not finite.
        """
        if self.moves():
            self._follow(matrix)
            self.count()
        if not self.is_enabled():
            return matrix
        with self.naming("weight"):
            return self._values(matrix)

    def _follow(self, matrix: Tensor) -> None:
        """Lets what is kept between steps follow the weight."""

    def _values(self, matrix: Tensor) -> Tensor:
        raise NotImplementedError

    def stored(self, matrix: Tensor) -> StoredWeight:
        """The codes and scales whose values :meth:`forward` gives for ``matrix``, on the CPU.

        Raises:
            FewbitError: A weight or a scale that is not finite.
        """
        with self.naming("weight"):
            return self._stored(matrix.detach().cpu())

    def _stored(self, matrix: Tensor) -> StoredWeight:
        raise NotImplementedError


class Int8RowFakeQuantize(WeightFakeQuantize):
    """int8 with a scale for each row, absmax / 127.5 of the row as it is."""

    def __init__(self) -> None:
        super().__init__(str(WeightScheme("int8")))

    def _values(self, matrix: Tensor) -> Tensor:
        return functions.int8_rows(matrix)

    def _stored(self, matrix: Tensor) -> Int8Weight:
        return Int8Weight.of(matrix, per_tensor=False)


class BlockFakeQuantize(WeightFakeQuantize):
    """NF4 in blocks of the flattened weight, each with the absmax that it has."""

    def __init__(self, scheme: WeightScheme) -> None:
        super().__init__(str(scheme))
        self.scheme = scheme
        # The offset of doubly quantized absmax values is that of all of them. Rows of a table are whole blocks.
        self.is_by_row = not scheme.double_quant

    def _values(self, matrix: Tensor) -> Tensor:
        return functions.nf4_blocks(matrix, block_size=self.scheme.block_size, double_quant=self.scheme.double_quant)

    def _stored(self, matrix: Tensor) -> FourBitWeight:
        return FourBitWeight.of(matrix, kind="nf4", block_size=self.scheme.block_size, double_quant=self.scheme.double_quant)


@dataclass(frozen=True)
class _Parameters:
    scales: Tensor
    zero_points: Tensor | None


class GroupFakeQuantize(WeightFakeQuantize):
    """Codes of 4 or 8 bits with a scale for each group of columns.

    Attributes:
        scale: (rows, groups), float32: a parameter where scales are learned, a buffer where they are searched; none where they follow from the weight.
        zero_point: (rows, groups), int8, of asymmetric groups.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, scheme: WeightScheme, matrix: Tensor) -> None:
        super().__init__(str(scheme))
        rows, columns = matrix.shape
        self.scheme = scheme
        self.bits = 4 if scheme.kind == "int4" else 8
        self.group_size = scheme.group_size or columns
        self.is_learned = scheme.scales == "learned"
        self.shape = (rows, columns // self.group_size)
        self._factor = 1.0 / math.sqrt(self.group_size * bounds(self.bits)[1])
        if scheme.scales == "absmax":
            return
        found = self._chosen(matrix, mse=True)
        if self.is_learned:
            self.scale = nn.Parameter(found.scales.to(matrix.device))
        else:
            self.register_buffer("scale", found.scales.to(matrix.device))
        if found.zero_points is not None:
            self.register_buffer("zero_point", found.zero_points.to(matrix.device))

    def _chosen(self, matrix: Tensor, *, mse: bool) -> _Parameters:
        """Scales and zero points that follow from the weight, on the CPU."""
        if self.bits == 8:
            return _Parameters(Int8Weight.of(matrix.detach().cpu(), per_tensor=False).scales.reshape(self.shape), None)
        asymmetric = self.scheme.asymmetric
        scales, points = _fewbit.int4_parameters(
            flat(matrix.detach().cpu()), self.group_size, asymmetric=asymmetric, mse=mse, threads=resolve_threads(None)
        )
        zero_points = torch.from_numpy(points).reshape(self.shape) if asymmetric else None
        return _Parameters(torch.from_numpy(scales).reshape(self.shape), zero_points)

    def _parameters_for(self, matrix: Tensor) -> _Parameters:
        if self.scheme.scales == "absmax":
            found = self._chosen(matrix, mse=False)
            points = found.zero_points
            return _Parameters(found.scales.to(matrix.device), None if points is None else points.to(matrix.device))
        # An int8 scale has no sign in files.
        scales = self.scale.abs() if self.bits == 8 else self.scale
        return _Parameters(scales, self.zero_point if self.scheme.asymmetric else None)

    def _follow(self, matrix: Tensor) -> None:
        if self.scheme.scales != "mse" or not self.observes() or self._number("steps") % self.scheme.scale_interval != 0:
            return
        with self.naming("weight"):
            found = self._chosen(matrix, mse=True)
        with torch.no_grad():
            self.scale.copy_(found.scales)
            if found.zero_points is not None:
                self.zero_point.copy_(found.zero_points)

    def _values(self, matrix: Tensor) -> Tensor:
        found = self._parameters_for(matrix)
        return functions.groups(
            matrix, found.scales, found.zero_points, group_size=self.group_size, bits=self.bits, factor=self._factor
        )

    def _stored(self, matrix: Tensor) -> StoredWeight:
        found = self._parameters_for(matrix)
        scales = found.scales.detach().to("cpu", torch.float32, copy=True).contiguous()
        usable = scales.isfinite() & (scales.abs() >= torch.finfo(torch.float32).tiny)
        if not bool(usable.all()):
            group = int((~usable.reshape(-1)).nonzero()[0])
            raise _fewbit.FewbitError(f"scale {group}: expected a normal number other than 0, found {float(scales.reshape(-1)[group])}")
        points = None if found.zero_points is None else found.zero_points.detach().cpu().contiguous()
        flat_points = None if points is None else points.reshape(-1).numpy()
        codes = torch.from_numpy(_fewbit.group_codes(flat(matrix), self.group_size, flat(scales), flat_points, bits=self.bits))
        codes = codes.reshape(matrix.shape)
        if self.bits == 8:
            return Int8Weight(codes, scales.reshape(-1))
        return Int4Weight.of_codes(codes, scales, points)


def weight_fake_quantize(scheme: WeightScheme, matrix: Tensor) -> WeightFakeQuantize:
    """The fake quantization of a weight (rows, columns) by a scheme.

    Raises:
        FewbitError: A weight that is not finite.
    """
    if scheme.kind == "nf4":
        return BlockFakeQuantize(scheme)
    if scheme.kind == "int8" and scheme.scales == "absmax":
        return Int8RowFakeQuantize()
    return GroupFakeQuantize(scheme, matrix)


def table_fake_quantize(scheme: WeightScheme) -> WeightFakeQuantize:
    """The fake quantization of an embedding table beside layers of a scheme: NF4 blocks, or int8 rows, as no layout has int4 groups of tables."""
    return BlockFakeQuantize(scheme) if scheme.kind == "nf4" else Int8RowFakeQuantize()
