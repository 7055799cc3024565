"""A float layer as a quantized one."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from fewbit._fewbit import FewbitError
from fewbit.torch.layers.convolution import QuantizedConvolution
from fewbit.torch.layers.embedding import QuantizedEmbedding
from fewbit.torch.layers.linear import QuantizedLinear
from fewbit.torch.layers.quantized_layer import QuantizedLayer, Unsupported
from fewbit.torch.layers.stored_weight import Activations, FourBitWeight, HalfWeight, Int4Weight, Int8Weight, StoredWeight
from fewbit.torch.module_copy import copy_module

#: The types of torch that can be converted; transformers' ``Conv1D`` can be, too.
SUPPORTED: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding)

METHODS = ("dynamic", "static", "weight-only", "fp16", "bf16", "nf4", "fp4")

#: Weights that were quantized already, by the float tensor and the settings, so that layers that share a weight share its codes.
SharedWeights = MutableMapping[Any, tuple[Tensor, StoredWeight]]


def supported_type(module: nn.Module) -> type[nn.Module] | None:
    """The type that can be converted of which ``module`` is an instance."""
    transformers: Any = sys.modules.get("transformers.pytorch_utils")
    kinds = SUPPORTED if transformers is None else (*SUPPORTED, transformers.Conv1D)
    return next((kind for kind in kinds if isinstance(module, kind)), None)


def base_type(module: nn.Module) -> type[nn.Module]:
    """The class of a module: where it is parametrized, the one that it had before."""
    kind: type[nn.Module] = type(module).__bases__[0] if parametrize.is_parametrized(module) else type(module)
    return kind


def convert_layer(
    module: nn.Module,
    method: str,
    *,
    input_scale: float | None = None,
    input_zero_point: int | None = None,
    reduce_range: bool = False,
    activations: str = "per-token",
    per_tensor: bool = False,
    block_size: int = 64,
    double_quant: bool = False,
    shared: SharedWeights | None = None,
    stored: StoredWeight | None = None,
) -> QuantizedLayer:
    """A native layer in the place of ``module``, which stays as it is.

    Args:
        module: A Linear, Conv1d, Conv2d, Embedding, or transformers' Conv1D.
        method: ``dynamic``, ``static``, ``weight-only``, ``fp16``, ``bf16``, ``nf4`` or ``fp4``.
        input_scale: With ``static`` the scale of inputs.
        input_zero_point: With ``static`` their zero point, for signed codes of -128 to 127 (that of ``quint8`` is 128 greater).
        reduce_range: With ``static`` whether codes are the -64 to 63 of 7 bits.
        activations: With ``dynamic`` which inputs share a scale: ``per-token``, or as torch has it ``per-tensor`` and ``per-tensor-7-bit``.
        per_tensor: Whether all of an int8 weight has one scale.
        block_size: With ``nf4`` and ``fp4`` the elements that share an absmax.
        double_quant: With ``nf4`` and ``fp4`` whether absmax values are quantized, too.
        shared: Weights that were quantized already.
        stored: The weight's codes and scales, where training has chosen them.

    Raises:
        Unsupported: The layer stays float; the text says why.
        FewbitError: The weight has NaN or infinity, or an option is out of range.
        ValueError: There is no such method, or ``static`` lacks a scale.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, found {method!r}")
    if method == "static" and (input_scale is None or input_zero_point is None):
        raise ValueError("static: expected input_scale and input_zero_point, found none\n  hint: prepare and calibrate the model first")
    kind = supported_type(module)
    if kind is None:
        raise Unsupported(f"fewbit has no quantized {base_type(module).__name__}")
    if "forward" in module.__dict__:
        raise Unsupported("its forward was replaced, as accelerate does to move layers about")
    if base_type(module).forward is not kind.forward:
        raise Unsupported(f"{base_type(module).__name__} has a forward of its own")
    weight, bias = weight_and_bias(module)
    _expect_usable(weight)
    is_table = isinstance(module, nn.Embedding)
    if is_table and method in ("nf4", "fp4") and stored is None:
        raise Unsupported("embedding tables have no 4-bit form here, as in bitsandbytes")
    if isinstance(module, (nn.Conv1d, nn.Conv2d)) and (method in ("nf4", "fp4") or activations != "per-token"):
        raise Unsupported("convolutions are int8 with a scale for each window, fp16 or bf16")
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        raise Unsupported("max_norm changes the table while it is read")
    matrix = weight.detach().t() if not isinstance(module, SUPPORTED) else weight.detach().flatten(1)
    if isinstance(stored, Int4Weight) and isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Embedding)):
        raise Unsupported(f"fewbit has no int4 {kind.__name__}")
    if stored is None:
        stored = _quantized(matrix, weight, method, per_tensor=per_tensor, block_size=block_size, double_quant=double_quant, shared=shared)
    inputs: Activations = "float"
    if method == "static" and input_scale is not None and input_zero_point is not None:
        inputs = (float(input_scale), int(input_zero_point), reduce_range)
    elif method == "dynamic":
        inputs = activations
    if is_table:
        inputs = "float"
    settings: dict[str, Any] = {"method": method, "activations": inputs, "dtype": weight.dtype}
    layer: QuantizedLayer
    if isinstance(module, nn.Embedding):
        sizes: dict[str, Any] = {"num_embeddings": module.num_embeddings, "embedding_dim": module.embedding_dim, "padding_idx": module.padding_idx}
        layer = QuantizedEmbedding(stored, None, **settings, **sizes)
    elif isinstance(module, (nn.Conv1d, nn.Conv2d)):
        layer = QuantizedConvolution(stored, bias, **settings, **QuantizedConvolution.sizes_of(module))
    else:
        out_features, in_features = matrix.shape
        transposed = not isinstance(module, nn.Linear)
        layer = QuantizedLinear(stored, bias, **settings, in_features=in_features, out_features=out_features, transposed=transposed)
    try:
        layer.native()
    except FewbitError as error:
        if "input features" in str(error):
            raise Unsupported(str(error).splitlines()[0]) from error
        raise
    layer.train(module.training)
    return layer


def weight_and_bias(module: nn.Module) -> tuple[Any, Any]:
    """The weight and the bias of a layer; those that a parametrization or ``weight_norm`` computes as it does in evaluation mode."""
    if parametrize.is_parametrized(module):
        # A copy, as some parametrizations change when they are asked in training mode.
        module = copy_module(module, {}).eval()
    found = {name: getattr(module, name, None) for name in ("weight", "bias")}
    hooks: Any = module._forward_pre_hooks.values()
    for hook in hooks:
        if type(hook).__name__ == "WeightNorm":
            found[hook.name] = hook.compute_weight(module)
        elif type(hook).__name__ == "SpectralNorm":
            found[hook.name] = hook.compute_weight(module, do_power_iteration=False)
    return found["weight"], found["bias"]


def _expect_usable(weight: Any) -> None:
    if is_lazy(weight):
        raise Unsupported("its weight has no shape yet: run the model once")
    if weight.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise Unsupported(f"its weight is {weight.dtype}: expected float32, float16 or bfloat16")
    if weight.device.type != "cpu":
        raise Unsupported(f"its weight is on {weight.device}: move the model to the CPU first")


def _quantized(
    matrix: Tensor, weight: Tensor, method: str, *, per_tensor: bool, block_size: int, double_quant: bool, shared: SharedWeights | None
) -> StoredWeight:
    kind = method if method in ("fp16", "bf16", "nf4", "fp4") else "int8"
    key = (id(weight), kind, tuple(matrix.shape), per_tensor, block_size, double_quant)
    if shared is not None and key in shared:
        return shared[key][1]
    stored: StoredWeight
    if kind == "int8":
        stored = Int8Weight.of(matrix, per_tensor=per_tensor)
    elif kind in ("fp16", "bf16"):
        stored = HalfWeight.of(matrix, kind)
    else:
        stored = FourBitWeight.of(matrix, kind=kind, block_size=block_size, double_quant=double_quant)
    if shared is not None:
        # With the weight, so that its id is not given to another one.
        shared[key] = (weight, stored)
    return stored
