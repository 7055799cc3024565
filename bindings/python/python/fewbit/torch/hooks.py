"""Hooks of modules that others take the place of."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

from torch import nn

HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
)


def move_hooks(original: nn.Module, module: nn.Module, memo: dict[int, Any] | None) -> None:
    """Gives ``module`` the hooks of ``original``, in their order; with ``memo`` copies of them, as a deep copy of the model has them.

    Hooks that compute a weight are left behind: the weight is computed.
    """
    for name in HOOKS:
        hooks = getattr(original, name)
        if memo is not None:
            kept = OrderedDict((key, hook) for key, hook in hooks.items() if type(hook).__name__ not in ("WeightNorm", "SpectralNorm"))
            hooks = copy.deepcopy(kept, memo)
        # In place the same dict goes on, so that the handles that remove hooks still do.
        if hooks or not getattr(module, name):
            setattr(module, name, hooks)
    module._is_full_backward_hook = original._is_full_backward_hook
