"""Which transformers encoders are swapped whole for the native executor, and why others are not."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from fewbit import _fewbit
from fewbit.torch import encoder_directory
from fewbit.torch.layers.stored_weight import StoredWeight
from fewbit.torch.native_encoder import NativeEncoder

_OPTIONS = {
    "asymmetric",
    "block_size",
    "double_quant",
    "embeddings",
    "group_size",
    "layout",
    "modules",
    "quantize_embeddings",
    "scales",
    "skip",
    "weight_only",
    "weights",
    "static_inputs",
    "weight_scales",
    "reduce_range",
}


def is_encoder(module: nn.Module) -> bool:
    """Whether ``module`` is a transformers encoder without a head, of a family that fewbit runs; subclasses of its class are."""
    base = _base_class(module)
    return base is not None and isinstance(module, base)


def swap(
    module: nn.Module,
    method: str,
    *,
    root: nn.Module | None = None,
    backend: str | None = None,
    codes: Mapping[str, StoredWeight] | None = None,
    **options: Any,
) -> nn.Module | str:
    """The native encoder that stands for ``module``, or the reason why there is none. ``module`` is not changed.

    Args:
        module: A transformers encoder, see :func:`is_encoder`.
        method: ``dynamic``, ``static``, ``weight-only``, ``fp16``, ``bf16``, ``nf4`` or ``fp4``.
        root: The model that it is a part of. An encoder whose layers that model also uses by themselves is not swapped.
        backend: A backend of PyTorch whose results are asked for, or ``native``.
        codes: Codes and scales that training has chosen, by the names of modules; of others they follow from the weights.
        options: Keys of a recipe: ``block_size``, ``double_quant``, ``embeddings`` or ``quantize_embeddings`` (without either they stay float), ``skip``,
            ``static_inputs`` …; ``None`` is the default of the method.

    Raises:
        TypeError: An option that does not exist.
    """
    unknown = sorted(set(options) - _OPTIONS)
    if unknown:
        raise TypeError(f"swap: unknown option {unknown[0]!r}; there are {', '.join(sorted(_OPTIONS))}")
    if method == "dynamic" and backend not in (None, "native"):
        return f"{backend} has one scale for the tokens of a whole batch: only single layers give its results"
    reason = why_not(module, root)
    if reason is not None:
        return reason
    # What a module's own type did not ask for stays as it is, whatever the default of the method is.
    embeddings = {} if "embeddings" in options else {"quantize_embeddings": False}
    recipe = {"method": method, **embeddings, **{name: value for name, value in options.items() if value is not None}}
    try:
        output_class, has_pooled = _output_of(module)
        if has_pooled and getattr(module, "pooler", None) is None:
            return "it gives a pooler_output without having a pooler"
        with encoder_directory.temporary_directory() as directory:
            source, out = os.path.join(directory, "float"), os.path.join(directory, "quantized")
            os.mkdir(source)
            encoder_directory.write_float(module, source)
            encoder_directory.convert(source, recipe, out, codes)
            return NativeEncoder(out, module, output_class, recipe)
    except _fewbit.FewbitError as error:
        return str(error)


def why_not(module: nn.Module, root: nn.Module | None = None) -> str | None:
    """Why the native executor does not stand for ``module``: what was done to it that its configuration does not tell."""
    base = _base_class(module)
    if base is None:
        return "not a transformers encoder of a family that fewbit runs"
    if type(module) is not base:
        return f"{type(module).__name__} is a class of its own, not transformers' {base.__name__}"
    reasons: tuple[Callable[[], str | None], ...] = (
        lambda: _about_tensors(module),
        lambda: _about_changes(module, base),
        lambda: _about_hooks(module),
        lambda: None if root is None else _about_sharing(module, root),
    )
    return next((reason for reason in (check() for check in reasons) if reason is not None), None)


def encoders_in(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The encoders of a model with their names, outermost first and none inside another."""
    inside: set[int] = set()
    for name, module in model.named_modules():
        if id(module) not in inside and is_encoder(module):
            inside.update(id(part) for part in module.modules())
            yield name, module


def parameter_count(model: nn.Module) -> int:
    """How many parameters a model has, those of native encoders counted as in the float model."""
    natives = [module for module in model.modules() if isinstance(module, NativeEncoder)]
    packed = {id(parameter) for native in natives for parameter in native.parameters()}
    others = sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in packed)
    return others + sum(native.num_parameters() for native in natives)


def _base_class(module: nn.Module) -> type[Any] | None:
    """The class that transformers has for encoders with the configuration of ``module``."""
    transformers: Any = sys.modules.get("transformers")
    # A model of transformers was not made without it; nothing is imported to find out.
    if transformers is None or not isinstance(module, transformers.PreTrainedModel):
        return None
    config: Any = module.config
    if getattr(config, "model_type", None) not in _fewbit.encoder_model_types():
        return None
    found = transformers.MODEL_MAPPING.get(type(config), None)
    classes = found if isinstance(found, tuple) else (found,)
    return next((known for known in classes if isinstance(known, type) and isinstance(module, known)), None)


def _about_tensors(module: nn.Module) -> str | None:
    for name, tensor in module.state_dict().items():
        if tensor.device.type != "cpu":
            return f"{name} is on {tensor.device}: `.cpu()` first"
        if name.endswith(("weight", "bias")) and not tensor.is_floating_point():
            return f"{name} is {tensor.dtype}, not float: it was quantized before"
    return None


def _about_changes(module: nn.Module, base: type[Any]) -> str | None:
    """Compares the modules with those that the configuration alone makes."""
    if not base.__module__.startswith("transformers."):
        return f"{base.__name__} is defined by code of its own"
    has_pooler = getattr(module, "pooler", None) is not None
    with torch.device("meta"):
        reference = dict(encoder_directory.new_model(base, module.config, has_pooler=has_pooler).named_modules())
    found = dict(module.named_modules())
    for name in [*found, *reference]:
        if name not in reference:
            return f"{name} ({type(found[name]).__name__}) was added to it"
        if name not in found:
            return f"{name} ({type(reference[name]).__name__}) was taken out of it"
        here, there = found[name], reference[name]
        if type(here) is not type(there):
            return f"{name} is {_described(here)}, where transformers has {_described(there)}"
        if "forward" in here.__dict__ or not type(here).forward.__module__.startswith(("torch.", "transformers.")):
            return f"{name or 'it'} has another forward than {type(here).__name__}"
        if not isinstance(here, nn.Dropout) and here.extra_repr() != there.extra_repr():
            return f"{name} is {type(here).__name__}({here.extra_repr()}), where transformers has {type(there).__name__}({there.extra_repr()})"
        for setting, value in _settings(there).items():
            if here.__dict__.get(setting) != value:
                return f"{f'{name}.' if name else ''}{setting} is {here.__dict__.get(setting)!r}, where transformers has {value!r}"
    return _about_default_ids(module)


def _settings(module: nn.Module) -> dict[str, Any]:
    """Numbers and words that a module keeps beside its tensors, such as the scale of attention; not those that concern training alone."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, bool | int | float | str) and not name.startswith("_") and "dropout" not in name and name not in _NO_SETTINGS
    }


#: What differs between models that compute the same.
_NO_SETTINGS = {"training", "gradient_checkpointing", "name_or_path", "p"}


def _about_default_ids(module: nn.Module) -> str | None:
    """Positions and types that stand for those that a call leaves out are buffers, which nothing else tells of."""
    for name, buffer in module.named_buffers():
        last = name.rsplit(".", 1)[-1]
        if last == "position_ids":
            expected = torch.arange(buffer.shape[-1]).expand(buffer.shape)
        elif last == "token_type_ids":
            expected = torch.zeros_like(buffer)
        else:
            continue
        if not torch.equal(buffer, expected):
            return f"{name} has other values than transformers gives it"
    return None


def _described(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__name__}"


def _about_hooks(module: nn.Module) -> str | None:
    for name, part in module.named_modules():
        kinds = ["_backward_hooks", "_backward_pre_hooks"]
        if part is not module:
            kinds += ["_forward_hooks", "_forward_pre_hooks"]
        for kind in kinds:
            for hook in getattr(part, kind).values():
                # transformers itself collects hidden states and attentions by hooks.
                if not str(getattr(hook, "__module__", "")).startswith("transformers."):
                    return f"{name or 'it'} has a hook ({getattr(hook, '__qualname__', type(hook).__qualname__)})"
    return None


def _about_sharing(module: nn.Module, root: nn.Module) -> str | None:
    """Whether the model uses a part of the encoder by itself."""
    parts = {id(part): name for name, part in module.named_modules() if part is not module}
    for name, other in root.named_modules():
        if other is module or id(other) in parts:
            continue
        for child_name, child in other._modules.items():
            if child is not None and id(child) in parts:
                place = f"{name}.{child_name}" if name else child_name
                return f"its part {parts[id(child)]} is used by itself, as {place}"
    return None


def _output_of(module: Any) -> tuple[type[Any], bool]:
    """What the forward of an encoder returns, and whether that has a pooled output: found by running it on one token."""
    # Without the hooks on it, which are for calls of its users.
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        output = module.forward(input_ids=torch.zeros((1, 1), dtype=torch.int64), return_dict=True)
    return type(output), output.get("pooler_output") is not None
