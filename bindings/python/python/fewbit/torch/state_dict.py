"""State of quantized models into models that are still float."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewbit._fewbit import FewbitError
from fewbit.torch.layers import QuantizedConvolution, QuantizedEmbedding, QuantizedLayer, QuantizedLinear
from fewbit.torch.layers.quantized_layer import DESCRIPTION_KEY, activations_of, read_description
from fewbit.torch.layers.stored_weight import restore
from fewbit.torch.module_copy import copy_module

_KINDS: dict[str, Any] = {kind.kind: kind for kind in (QuantizedLinear, QuantizedConvolution, QuantizedEmbedding)}


def load_state_dict(model: nn.Module, state_dict: Mapping[str, Tensor], strict: bool = True) -> nn.Module:
    """A copy of ``model`` in evaluation mode with the state of a quantized model: layers that were quantized there become quantized here.

    Args:
        model: The float model as its class makes it, or a quantized one. Of a model that is one layer the new layer is returned.
        state_dict: What ``state_dict()`` of the quantized model gave, read from wherever it was saved.
        strict: Whether other keys than those of the model are an error.

    Raises:
        FewbitError: A layer of the state is not in the model, or has another shape there, or is damaged.
        RuntimeError: Keys are missing or unexpected (torch's own words).
    """
    memo: dict[int, Any] = {}
    for key, tensor in state_dict.items():
        if not (key == DESCRIPTION_KEY or key.endswith("." + DESCRIPTION_KEY)):
            continue
        prefix = key[: -len(DESCRIPTION_KEY)]
        try:
            module = model.get_submodule(prefix[:-1])
        except AttributeError as error:
            raise FewbitError(f"{prefix[:-1]}: expected a module of the model, found none\n  hint: the state is that of another model") from error
        if not isinstance(module, QuantizedLayer):
            memo[id(module)] = _layer_of(module, prefix, read_description(tensor, prefix), state_dict)
    result = copy_module(model, memo)
    result.load_state_dict(state_dict, strict=strict)
    return result.eval()


def _layer_of(module: nn.Module, prefix: str, description: dict[str, Any], state_dict: Mapping[str, Tensor]) -> QuantizedLayer:
    kind = _KINDS.get(description["kind"])
    if kind is None:
        raise FewbitError(f"{prefix}{DESCRIPTION_KEY}: expected one of {', '.join(_KINDS)}, found {description['kind']!r}")
    own = {key[len(prefix) :]: tensor for key, tensor in state_dict.items() if key.startswith(prefix)}
    sizes = {name: value for name, value in description.items() if name not in ("kind", "method", "activations", "dtype", "bias", "weight")}
    try:
        stored = restore(description["weight"], own)
        bias = own["bias"] if description["bias"] else None
        settings = {"method": description["method"], "activations": activations_of(description), "dtype": getattr(torch, description["dtype"])}
        layer: QuantizedLayer = kind(stored, bias, **settings, **sizes)
        shape = layer.weight.shape
    except (FewbitError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise FewbitError(f"{prefix[:-1]}: expected the state of a quantized layer, found a damaged one: {error}") from error
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.shape != shape:
        found = tuple(weight.shape) if isinstance(weight, Tensor) else type(module).__name__
        raise FewbitError(f"{prefix}weight: expected the shape of the model, {found}, found {tuple(shape)}\n  hint: the state is that of another model")
    return layer
