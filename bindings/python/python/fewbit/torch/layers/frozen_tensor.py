"""Tensors that can be read but not changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from fewbit._fewbit import FewbitError


class FrozenTensor(Tensor):
    """A weight or bias of a quantized layer, as a float tensor: computed whenever an operation reads it, and never held.

    It counts as a parameter of its full size, so that the number of parameters of a model stays what it was. As changes of it would not reach the
    layer, they are errors.
    """

    _values: Callable[[], Tensor]

    @staticmethod
    def __new__(cls, values: Callable[[], Tensor], shape: torch.Size, dtype: torch.dtype, device: torch.device) -> FrozenTensor:
        make: Any = Tensor._make_wrapper_subclass  # Not typed in torch.
        tensor: FrozenTensor = make(cls, shape, dtype=dtype, device=device, requires_grad=False)
        tensor._values = values
        return tensor

    def __init__(self, values: Callable[[], Tensor], shape: torch.Size, dtype: torch.dtype, device: torch.device) -> None:
        pass

    def plain(self) -> Tensor:
        """An ordinary tensor with its values."""
        return self._values().to(self.dtype).reshape(self.shape)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.detach.default:
            return FrozenTensor(args[0]._values, args[0].shape, args[0].dtype, args[0].device)
        for position, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written = args[position] if position < len(args) else kwargs.get(argument.name)
                if isinstance(written, FrozenTensor):
                    raise FewbitError(
                        f"{func}: expected a tensor that can be changed, found the weight or bias of a quantized layer\n"
                        "  hint: change the float model and quantize it again"
                    )
        read = lambda value: value.plain() if isinstance(value, FrozenTensor) else value  # noqa: E731
        return func(*tree_map(read, args), **tree_map(read, kwargs))

    def requires_grad_(self, requires_grad: bool = True) -> FrozenTensor:
        """Raises if gradients are asked for: a quantized layer is not trained."""
        if requires_grad:
            raise FewbitError(
                "requires_grad_: expected False for the weight or bias of a quantized layer, found True\n"
                "  hint: train the float model and quantize it afterwards; gradients of the layer's inputs are there"
            )
        return self

    def __deepcopy__(self, memo: Any) -> Tensor:
        return self.plain()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.plain().__reduce_ex__(protocol)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"FrozenTensor({self.plain()!r})"
