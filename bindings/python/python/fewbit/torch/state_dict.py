"""State of quantized models into models that are still float."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewbit._fewbit import FewbitError
from fewbit.torch import encoders
from fewbit.torch.layers import QuantizedConvolution, QuantizedEmbedding, QuantizedLayer, QuantizedLinear
from fewbit.torch.layers.quantized_layer import DESCRIPTION_KEY, activations_of, read_description
from fewbit.torch.layers.stored_weight import restore
from fewbit.torch.module_copy import copy_module
from fewbit.torch.native_encoder import MARKER, NativeEncoder

_KINDS: dict[str, Any] = {kind.kind: kind for kind in (QuantizedLinear, QuantizedConvolution, QuantizedEmbedding)}


def load_state_dict(model: nn.Module, state_dict: Mapping[str, Tensor], strict: bool = True) -> nn.Module:
    """A copy of ``model`` in evaluation mode with the state of a quantized model: layers that were quantized there become quantized here, and
    encoders native ones.

    Args:
        model: The float model as its class makes it, or a quantized one. Of a model that is one layer the new layer is returned.
        state_dict: What ``state_dict()`` of the quantized model gave, read from wherever it was saved.
        strict: Whether other keys than those of the model are an error.

    Raises:
        FewbitError: A layer of the state is not in the model, or has another shape there, or is damaged; an encoder that cannot be swapped.
        RuntimeError: Keys are missing or unexpected (torch's own words).
    """
    memo: dict[int, Any] = {}
    for key, tensor in state_dict.items():
        name = next((name for name in (DESCRIPTION_KEY, MARKER) if key == name or key.endswith(f".{name}")), None)
        if name is None:
            continue
        prefix = key[: -len(name)]
        path = prefix[:-1]
        try:
            module = model.get_submodule(path)
        except AttributeError as error:
            raise FewbitError(f"{path}: expected a module of the model, found none\n  hint: the state is that of another model") from error
        if name == MARKER and not isinstance(module, NativeEncoder):
            memo[id(module)] = _encoder_of(module, path, tensor, model)
        elif name == DESCRIPTION_KEY and not isinstance(module, QuantizedLayer):
            memo[id(module)] = _layer_of(module, prefix, read_description(tensor, prefix), state_dict)
    result = copy_module(model, memo)
    result.load_state_dict(state_dict, strict=strict)
    return result.eval()


def _encoder_of(module: nn.Module, path: str, description: Tensor, root: nn.Module) -> nn.Module:
    """A native encoder of the recipe in ``description``; its weights are still those of ``module``."""
    try:
        recipe: dict[str, Any] = json.loads(description.numpy().tobytes())
        swapped = encoders.swap(module, root=root, **recipe)
    except (ValueError, TypeError) as error:
        raise FewbitError(f"{path}: expected the state of a native encoder, found a damaged one: {error}") from error
    if isinstance(swapped, str):
        raise FewbitError(f"{path}: the state is that of a native encoder, which this {type(module).__name__} cannot become: {swapped}")
    return swapped


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
