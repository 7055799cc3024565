"""Layers with a LoRA adapter of PEFT: what is written is the merged weight, so that is what is fake-quantized."""

# torch is typed in parts, and what modules are made of is private there; PEFT is not typed.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from fewbit.torch.qat.layers import FakeQuantizedLayer


def is_adapted(module: nn.Module) -> bool:
    """Whether a module is a linear layer of PEFT with a LoRA adapter."""
    # A model of PEFT was not made without it; nothing is imported to find out.
    layer: Any = sys.modules.get("peft.tuners.lora.layer")
    return layer is not None and type(module) is layer.Linear


def why_not(module: Any) -> str | None:
    """Why the merged weight cannot be trained, or ``None``."""
    if module.merged:
        return "its adapter is merged already: `unmerge_adapter()` first"
    if type(module.get_base_layer()) is not nn.Linear:
        return f"its adapter is one of a {type(module.get_base_layer()).__name__}"
    if any(getattr(module, "use_dora", {}).values()) or any(getattr(module, "lora_bias", {}).values()):
        return "its adapter is more than a product of two matrices"
    if any(float(getattr(dropout, "p", 0.0)) > 0 for dropout in module.lora_dropout.values()):
        return "its adapter has dropout, which a merged weight cannot have: `lora_dropout=0` in LoraConfig"
    return None


@cache
def _lora_class() -> type[Any]:
    from peft.tuners.lora.layer import Linear

    base: Any = Linear

    class FakeQuantizedLoraLinear(FakeQuantizedLayer, base):  # type: ignore[misc]
        """PEFT's linear layer with fake quantization of the weight that merging gives."""

        float_class = base

        def float_matrix(self) -> Tensor:
            """The merged weight, with the gradients of the adapter's matrices."""
            layer: Any = self
            weight: Tensor = layer.get_base_layer().weight
            if layer.disable_adapters:
                return weight
            for adapter in layer.active_adapters:
                if adapter in layer.lora_A:
                    weight = weight + layer.get_delta_weight(adapter).to(weight.dtype)
            return weight

        def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if args or kwargs.get("adapter_names") is not None:
                raise NotImplementedError("adapter_names: expected one merged weight for all of a batch, found several adapters")
            layer: Any = self
            return functional.linear(self._quantized_inputs(x), self.weight_fake_quant(self.float_matrix()), layer.get_base_layer().bias)

    FakeQuantizedLoraLinear.__qualname__ = "FakeQuantizedLoraLinear"
    return FakeQuantizedLoraLinear


def lora_class() -> type[FakeQuantizedLayer]:
    """The class of fake-quantized layers with an adapter."""
    return _lora_class()


def __getattr__(name: str) -> Any:
    # Pickles find the class by its name.
    if name == "FakeQuantizedLoraLinear":
        return _lora_class()
    raise AttributeError(name)


def merged(module: FakeQuantizedLayer) -> nn.Linear:
    """The float layer that merging gives."""
    layer: Any = module
    weight = layer.float_matrix().detach().clone()
    base = layer.get_base_layer()
    result = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
    result.weight = nn.Parameter(weight)
    if base.bias is not None:
        result.bias = nn.Parameter(base.bias.detach().clone())
    return result.train(layer.training)


def is_wrapper(model: nn.Module) -> bool:
    """Whether a model is PEFT's wrapper around another."""
    peft: Any = sys.modules.get("peft")
    return peft is not None and isinstance(model, peft.PeftModel)


def without_wrapper(model: nn.Module) -> nn.Module:
    """The model inside a ``PeftModel`` whose adapters are merged."""
    if is_wrapper(model):
        wrapper: Any = model
        inner: nn.Module = wrapper.base_model.model
        return inner
    return model
