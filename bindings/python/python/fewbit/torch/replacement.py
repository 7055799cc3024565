"""Modules of a model exchanged for others, in the model or in a copy of it."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fewbit.torch.hooks import move_hooks
from fewbit.torch.module_copy import copy_module
from fewbit.torch.saving import expose_save_pretrained


def with_replaced(model: nn.Module, replaced: Mapping[nn.Module, nn.Module], inplace: bool) -> nn.Module:
    """``model`` with ``inplace``, else a copy of it that shares nothing with it, with new modules in all places of the old ones, whose hooks they get.

    What is replaced is not copied, so that a copy takes the memory of the new modules only.
    """
    memo: dict[int, Any] | None = None
    if not inplace:
        memo = {id(old): new for old, new in replaced.items()}
        result = copy_module(model, memo)
    elif model in replaced:
        result = replaced[model]
    else:
        result = model
        for parent in list(model.modules()):
            for name, child in parent._modules.items():
                if child is not None and child in replaced:
                    parent._modules[name] = replaced[child]
    for old, new in replaced.items():
        move_hooks(old, new, memo)
    if replaced:
        # transformers' Trainer refuses such models.
        result.__dict__["is_quantized"] = True
        expose_save_pretrained(result)
    return result
