"""Embedding tables."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fewbit import _fewbit
from fewbit.torch.layers.quantized_layer import QuantizedLayer
from fewbit.torch.layers.stored_weight import Activations, FourBitWeight, HalfWeight, Int8Weight, StoredWeight


class QuantizedEmbedding(QuantizedLayer):
    """Rows of a table of int8 codes with a scale for each row, of 4-bit codes in blocks of a row, or of 16-bit floats. Outputs have the dtype of the float table.

    Attributes:
        num_embeddings: Rows of the table.
        embedding_dim: Columns of the table.
        padding_idx: The row of padding; it is looked up as any other.
    """

    kind = "embedding"
    max_norm: None = None

    def __init__(
        self,
        stored: StoredWeight,
        bias: Tensor | None,
        *,
        method: str,
        activations: Activations,
        dtype: torch.dtype,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
    ) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self._hold(stored, bias, method=method, activations=activations, dtype=dtype)

    def _sizes(self) -> dict[str, Any]:
        return {"num_embeddings": self.num_embeddings, "embedding_dim": self.embedding_dim, "padding_idx": self.padding_idx}

    def _pack(self) -> Any:
        return None

    def forward(self, ids: Tensor) -> Tensor:
        """Rows (..., columns) for ``ids`` (...) of int64 or int32."""
        if isinstance(self._stored, HalfWeight):
            return functional.embedding(ids, self._stored.values).to(self._dtype)
        if self._runs_at_once(ids):
            return self.compute(ids)
        rows: Tensor = torch.ops.fewbit.embedding(ids, self._number, self.embedding_dim, self._dtype)
        return rows

    def compute(self, x: Tensor) -> Tensor:
        if x.dtype not in (torch.int64, torch.int32) or x.device.type != "cpu":
            raise _fewbit.FewbitError(f"Embedding: expected int64 or int32 on the CPU, found {x.dtype} on {x.device}")
        ids = x.reshape(-1).to(torch.int64).contiguous()
        if isinstance(self._stored, FourBitWeight):
            return self._four_bit_rows(self._stored, ids).reshape(*x.shape, self.embedding_dim).to(self._dtype)
        assert isinstance(self._stored, Int8Weight)
        rows = torch.empty((ids.shape[0], self.embedding_dim), dtype=torch.float32, device="cpu")
        _fewbit.embedding_rows(self._stored.codes.numpy(), self._stored.scales.numpy(), ids.numpy(), rows.numpy())
        return rows.reshape(*x.shape, self.embedding_dim).to(self._dtype)

    def _four_bit_rows(self, stored: FourBitWeight, ids: Tensor) -> Tensor:
        """Rows that are whole blocks, as training has them."""
        packed, absmax = (part.reshape(self.num_embeddings, -1).index_select(0, ids) for part in (stored.packed, stored.absmax))
        return dataclasses.replace(stored, packed=packed.reshape(-1), absmax=absmax.reshape(-1), nested=None, shape=(ids.shape[0], self.embedding_dim)).matrix()

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, padding_idx={self.padding_idx}, method={self.method}"
