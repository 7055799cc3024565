"""Tensors that can be read but not changed."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Iterable
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

    _read_values: Callable[[], Tensor]

    def __new__(cls, values: Callable[[], Tensor], shape: torch.Size, dtype: torch.dtype, device: torch.device) -> FrozenTensor:
        make: Any = Tensor._make_wrapper_subclass  # Not typed in torch.
        tensor: FrozenTensor = make(cls, shape, dtype=dtype, device=device, requires_grad=False)
        tensor._read_values = values
        return tensor

    def __init__(self, values: Callable[[], Tensor], shape: torch.Size, dtype: torch.dtype, device: torch.device) -> None:
        pass

    def plain(self) -> Tensor:
        """An ordinary tensor with its values."""
        return self._read_values().to(self.dtype).reshape(self.shape)

    @classmethod  # torch's own is typed as the function that switches it off.
    def __torch_dispatch__(  # type: ignore[override]  # pyright: ignore
        cls, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.detach.default:
            return FrozenTensor(args[0]._read_values, args[0].shape, args[0].dtype, args[0].device)
        for position, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written = args[position] if position < len(args) else kwargs.get(argument.name)
                if isinstance(written, FrozenTensor):
                    raise FewbitError(
                        f"{func}: expected a tensor that can be changed, found the weight or bias of a quantized layer\n"
                        "  hint: change the float model and quantize it again"
                    )
        found = func(*tree_map(_read, args), **tree_map(_read, kwargs))
        if any(returned.alias_info is not None and not returned.alias_info.is_write for returned in func._schema.returns):
            # A view: what is written to it would not reach the layer either.
            return tree_map(_frozen, found)
        return found

    def requires_grad_(self, mode: bool = True) -> FrozenTensor:
        """Raises if gradients are asked for: a quantized layer is not trained."""
        if mode:
            raise FewbitError(
                "requires_grad_: expected False for the weight or bias of a quantized layer, found True\n"
                "  hint: train the float model and quantize it afterwards; gradients of the layer's inputs are there"
            )
        return self

    def __deepcopy__(self, memo: Any) -> Tensor:
        return self.plain()

    def __reduce_ex__(self, protocol: Any) -> Any:
        plain: Any = self.plain()
        return plain.__reduce_ex__(protocol)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]  # torch's is typed as a function without a name.
        return f"FrozenTensor({self.plain()!r})"


def _frozen(value: Any) -> Any:
    return FrozenTensor(lambda: value, value.shape, value.dtype, value.device) if type(value) is Tensor else value


def _read(value: Any) -> Any:
    return value.plain() if isinstance(value, FrozenTensor) else value
