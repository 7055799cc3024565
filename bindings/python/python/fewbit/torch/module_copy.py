"""Copies of modules, also after a forward pass with gradients."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def copy_module(module: Module, memo: dict[int, Any]) -> Module:
    """A deep copy of ``module``; what ``memo`` holds by the ``id`` of an object takes its place in the copy.

    Tensors that a forward pass left in attributes and that have a history of gradients, which torch refuses to copy, are copied without it.
    """
    for part in module.modules():
        if id(part) in memo:
            continue
        for tensor in _tensors(part.__dict__, depth=4):
            if tensor.grad_fn is not None and id(tensor) not in memo:
                memo[id(tensor)] = tensor.detach().clone()
    result: Module = copy.deepcopy(module, memo)
    return result


def _tensors(value: Any, depth: int) -> Iterator[Tensor]:
    """Tensors in nested dicts, lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part, depth - 1)
    elif depth and isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part, depth - 1)
