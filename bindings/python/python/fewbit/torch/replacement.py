"""Modules of a model exchanged for others, in the model or in a copy of it."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from torch import nn

from fewbit.torch.module_copy import copy_module
from fewbit.torch.saving import expose_save_pretrained


def with_replaced(model: nn.Module, replaced: dict[nn.Module, nn.Module], inplace: bool) -> nn.Module:
    """``model`` with ``inplace``, else a copy of it that shares nothing with it, with new modules in all places of the old ones.

    What is replaced is not copied, so that a copy takes the memory of the new modules only.
    """
    if not inplace:
        result = copy_module(model, {id(old): new for old, new in replaced.items()})
    elif model in replaced:
        result = replaced[model]
    else:
        result = model
        for parent in list(model.modules()):
            for name, child in parent._modules.items():
                if child is not None and child in replaced:
                    parent._modules[name] = replaced[child]
    if replaced:
        # transformers' Trainer refuses such models.
        result.__dict__["is_quantized"] = True
        expose_save_pretrained(result)
    return result
