"""``prepare_qat``: which layers are fake-quantized."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from fewbit.torch import encoders
from fewbit.torch.layers import QuantizedLayer, base_type
from fewbit.torch.module_copy import copy_module
from fewbit.torch.native_encoder import NativeEncoder
from fewbit.torch.qat import adapters
from fewbit.torch.qat.config import BaseConfig, Scales, base_config_of
from fewbit.torch.qat.layers import CLASSES, FakeQuantizedLayer, insert, remove
from fewbit.torch.qat.module_configs import ModuleConfigs, is_glob, matches
from fewbit.torch.qat.recipe import configs_of_recipe, is_recipe
from fewbit.torch.report import ConversionReport, ModuleReport, attach_report
from fewbit.torch.static import is_prepared

_DTYPES = ("torch.float32", "torch.float16", "torch.bfloat16")


def prepare_qat(
    model: nn.Module,
    config: BaseConfig | str | os.PathLike[str] | Mapping[str, Any] = "dynamic",
    modules: Collection[type[nn.Module] | str] = (nn.Linear,),
    inplace: bool = False,
    *,
    module_configs: Mapping[type[nn.Module] | str, BaseConfig | str] | None = None,
    scales: Scales | None = None,
    skip: Collection[str] = (),
    filter_fn: Callable[[nn.Module, str], bool] | None = None,
) -> nn.Module:
    """A copy of ``model`` whose layers compute with the values that quantized ones have, for training by any loop.

    The layers stay ``nn.Linear`` …, with the same parameters under the same keys. :func:`fewbit.torch.convert` makes the quantized model of it.
    :func:`fewbit.torch.report_of` says of each layer what became of it.

    Args:
        model: Any module with float weights; a model of PEFT with LoRA adapters is prepared with its merged weights.
        config: What it is trained to become: a config such as :class:`Int8DynamicActivationInt4WeightConfig`, or ``dynamic``, ``static``,
            ``weight-only``, ``w4a8``, ``int4`` or ``nf4``; or a recipe, such as :func:`fewbit.sensitivity` writes: the path of its file, or its keys.
        modules: Types and names: a type means exactly this type; a name a module and all linear layers in it. Of ``nn.Linear``, ``nn.Conv1d``,
            ``nn.Conv2d`` and ``nn.Embedding``.
        inplace: Whether ``model`` itself is changed.
        module_configs: Other configs for some of the layers: by types and names, which are asked for as if ``modules`` had them, too, and by patterns of
            names such as ``"*.output.dense"``. A layer's own name goes before patterns and modules that it is in, these go before types.
        scales: How scales of weights come about, in all configs that can have them so, instead of what each of them says.
        skip: Names that stay float, or patterns of names such as ``"*.attention.*"``.
        filter_fn: Called with a layer that would be fake-quantized and its name; what it returns ``False`` for stays float.

    Raises:
        ValueError: Nothing to quantize, a pattern that matches nothing, two that say different things of one layer, a model that is prepared or quantized
            already, a recipe that training cannot follow.
        FewbitError: A weight that is not finite; no recipe.

    >>> import torch
    >>> import fewbit.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> prepared = fewbit.torch.prepare_qat(model, "dynamic")
    >>> optimizer = torch.optim.AdamW(prepared.parameters(), lr=1e-5)
    >>> prepared.train()(torch.ones(3, 64)).sum().backward()
    >>> optimizer.step()
    >>> fewbit.torch.convert(prepared)(torch.ones(3, 64)).shape
    torch.Size([3, 2])
    """
    if not isinstance(model, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"model: expected an nn.Module, found {type(model).__name__}")
    refuse_prepared(model)
    configs, modules, skip = _chosen_configs(model, config, modules, module_configs or {}, skip, scales)
    prepared = model if inplace else copy_module(model, {})
    selection = _Selection(prepared, configs, modules, skip, filter_fn)
    try:
        report = selection.run()
    except BaseException:
        # A model that was given to be changed is float again, and not prepared in parts.
        selection.undo()
        raise
    for text in selection.warnings:
        warnings.warn(text, stacklevel=2)
    unused = configs.unused()
    if unused is not None:
        selection.undo()
        raise ValueError(
            f"module_configs: expected types, names and patterns of layers that are quantized, found {unused!r}, which matches none\n"
            "  hint: model.named_modules() lists the names; layers that `modules` does not ask for, or that `skip` or `filter_fn` leave out, stay float"
        )
    if not report.count("fake-quantized"):
        raise ValueError(
            f"prepare_qat: expected layers to quantize, found none in {type(model).__name__}\n"
            f"  hint: modules= says which types or names; a type means exactly this type\n{report}"
        )
    attach_report(prepared, report)
    return prepared


def _chosen_configs(
    model: nn.Module,
    config: Any,
    modules: Collection[type[nn.Module] | str],
    module_configs: Mapping[type[nn.Module] | str, BaseConfig | str],
    skip: Collection[str],
    scales: Scales | None,
) -> tuple[ModuleConfigs, set[type[nn.Module] | str], tuple[str, ...]]:
    """Which config each layer has, which layers are asked for, and which are not."""
    skip = (skip,) if isinstance(skip, str) else tuple(skip)
    asked_for = {*modules, *(key for key in module_configs if not (isinstance(key, str) and is_glob(key)))}
    given = {key: base_config_of(value) for key, value in module_configs.items()}
    if is_recipe(config):
        found = configs_of_recipe(config, model)
        base, of_recipe, skip = found.config, found.modules, (*skip, *found.skip)
        if found.has_table:
            asked_for.add(nn.Embedding)
    else:
        base, of_recipe = base_config_of(config), {}
    configs = ModuleConfigs(base, given, of_recipe)
    return configs if scales is None else configs.with_scales(scales), asked_for, skip


def refuse_prepared(model: nn.Module) -> None:
    """Errors if a model has been prepared, or quantized."""
    for name, module in model.named_modules():
        if isinstance(module, FakeQuantizedLayer):
            raise ValueError(
                f"prepare_qat: expected a float model, found one that is prepared already ({name or 'the model'})\n"
                "  hint: `enable_fake_quant` and `enable_observer` begin again; `convert` makes the quantized model"
            )
        if isinstance(module, (QuantizedLayer, NativeEncoder)):
            raise ValueError(f"prepare_qat: expected a float model, found a quantized {type(module).__name__} ({name or 'the model'})")
    if is_prepared(model):
        raise ValueError("prepare_qat: expected a float model, found one with observers of `prepare`")


class _Selection:
    """Decides about the modules of one model, and prepares those that are chosen."""

    def __init__(
        self,
        model: nn.Module,
        configs: ModuleConfigs,
        modules: Collection[type[nn.Module] | str],
        skip: Collection[str],
        filter_fn: Callable[[nn.Module, str], bool] | None,
    ) -> None:
        self.model = model
        self.configs = configs
        self.types = {kind for kind in modules if not isinstance(kind, str)}
        self.names = {name for name in modules if isinstance(name, str)}
        self.skip = skip
        self.filter_fn = filter_fn
        self.report = ConversionReport()
        self.warnings: list[str] = []
        self.prepared: list[nn.Module] = []
        every = {name for name, _ in model.named_modules(remove_duplicate=False)}
        for kind in self.types:
            if not (isinstance(kind, type) and issubclass(kind, nn.Module)):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ValueError(f"modules: expected types of modules and names, found {kind!r}")
        for name in self.names:
            if name not in every:
                raise ValueError(f"modules: expected names of modules, found {name!r}\n  hint: model.named_modules() lists them")
        for pattern in self.skip:
            if not any(matches(name, pattern) for name in every):
                raise ValueError(f"skip: expected patterns of names of modules, found {pattern!r}, which matches none\n  hint: model.named_modules() lists them")
        self.inside_adapters = {
            id(part) for _, module in model.named_modules() if adapters.is_adapted(module) for part in module.modules() if part is not module
        }
        self.float_parts = _float_parts(model)

    def undo(self) -> None:
        """Makes float layers of those that were prepared."""
        for module in self.prepared:
            remove(module)

    def run(self) -> ConversionReport:
        seen: dict[int, str] = {}
        # Decided before the first is changed: an encoder with changed layers is not known as one.
        for name, module in list(self.model.named_modules(remove_duplicate=False)):
            kind = base_type(module).__name__
            if id(module) in seen:
                if any(True for _ in module.parameters(recurse=False)):
                    self.report.append(ModuleReport(name, kind, self.report.of(seen[id(module)]).action, f"the same module as {seen[id(module)]}"))
                continue
            if id(module) in self.inside_adapters or isinstance(module, nn.ModuleList | nn.ModuleDict):
                continue
            decision = self._decide(name, module)
            if decision is None:
                continue
            seen[id(module)] = name
            action, reason = decision
            self.report.append(ModuleReport(name, kind, action, reason))
        return self.report

    def _decide(self, name: str, module: nn.Module) -> tuple[str, str] | None:
        """What becomes of a module, and why; ``None`` of those without parameters."""
        is_adapted = adapters.is_adapted(module)
        kind = adapters.lora_class() if is_adapted else CLASSES.get(type(module))
        is_named = any(name == given or (name.startswith(f"{given}.") and self._is_linear(module)) for given in self.names)
        is_asked_for = is_named or type(module) in self.types or (is_adapted and nn.Linear in self.types)
        if kind is None:
            if any(True for _ in module.parameters(recurse=False)):
                # What a name stands for and cannot be done is told aloud.
                if name in self.names or type(module) in self.types:
                    self.warnings.append(f"{name or 'the model'} ({base_type(module).__name__}) stays float: {_why_unknown(module)}")
                return "float", _why_unknown(module)
            return None
        if not is_asked_for:
            return "float", "not asked for"
        reason = self._reason_for_float(name, module, name in self.names)
        if reason is None and self.filter_fn is not None and not self.filter_fn(module, name):
            reason = "filter_fn says so"
        if reason is None and any(matches(name, pattern) for pattern in self.skip):
            reason = "skipped"
        config = self.configs.base if reason is not None else self.configs.of(name, nn.Linear if is_adapted else type(module))
        if reason is None:
            unfit = _why_unfit(module, config, is_adapted)
            if unfit is not None:
                self.warnings.append(f"{name or 'the model'} ({base_type(module).__name__}) stays float: {unfit}")
                reason = unfit
        if reason is not None:
            return "float", reason
        self.prepared.append(module)
        insert(module, kind, config, name)
        return "fake-quantized", _described(config, module)

    @staticmethod
    def _is_linear(module: nn.Module) -> bool:
        return type(module) is nn.Linear or adapters.is_adapted(module)

    def _reason_for_float(self, name: str, module: nn.Module, is_named: bool) -> str | None:
        return None if is_named else self.float_parts.get(id(module))


def _float_parts(model: nn.Module) -> dict[int, str]:
    """Layers that directories of encoders keep float, by their ids, with the reason."""
    found: dict[int, str] = {}
    for _, encoder in encoders.encoders_in(model):
        inner: Any = encoder
        tables = {id(inner.get_input_embeddings())}
        for part_name, part in encoder.named_modules():
            if part_name.split(".")[0] == "pooler":
                found[id(part)] = "the pooler, which stays float"
            elif isinstance(part, nn.Embedding) and id(part) not in tables:
                found[id(part)] = "of embeddings the table of words alone is quantized"
            elif isinstance(part, nn.Conv1d):
                found[id(part)] = "the convolution of an encoder, which stays float"
    transformers: Any = sys.modules.get("transformers")
    if transformers is not None:
        for _, module in model.named_modules():
            base = getattr(module, getattr(module, "base_model_prefix", "") or " ", None) if isinstance(module, transformers.PreTrainedModel) else None
            if isinstance(base, nn.Module) and base is not module and encoders.is_encoder(base):
                inside = {id(part) for part in base.modules()}
                for part in module.modules():
                    if id(part) not in inside and isinstance(part, (nn.Linear, nn.Embedding)):
                        found[id(part)] = "a head, which directories keep float: name it in modules= to quantize it"
    return found


def _why_unfit(module: Any, config: BaseConfig, is_adapted: bool) -> str | None:
    """Why a layer that was asked for cannot be fake-quantized."""
    if is_adapted:
        reason = adapters.why_not(module)
        if reason is not None:
            return reason
        weight = module.get_base_layer().weight
    else:
        weight = module.weight
    if "forward" in module.__dict__:
        return "its forward was replaced"
    if parametrize.is_parametrized(module):
        return "it is parametrized: remove the parametrization first"
    if is_lazy(weight):
        return "its weight has no shape yet: run the model once"
    if str(weight.dtype) not in _DTYPES:
        return f"its weight is {weight.dtype}: expected float32, float16 or bfloat16"
    scheme = config.weight
    columns = weight.flatten(1).shape[1]
    if isinstance(module, nn.Embedding):
        if module.max_norm is not None:
            return "max_norm changes the table while it is read"
        return f"blocks of {scheme.block_size} do not divide its {columns} columns" if scheme.kind == "nf4" and columns % scheme.block_size else None
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return "convolutions are int8" if scheme.kind != "int8" else None
    if 0 in weight.shape:
        return "it has no weights"
    if scheme.kind == "int4" and columns % (scheme.group_size or columns):
        return f"groups of {scheme.group_size} do not divide its {columns} inputs"
    if scheme.kind == "int4" and scheme.group_size and scheme.group_size % 8 and config.inputs.kind != "float":
        return f"beside quantized inputs groups are a multiple of 8 columns, not {scheme.group_size}"
    return None


def _why_unknown(module: nn.Module) -> str:
    kind = base_type(module)
    if isinstance(module, nn.MultiheadAttention):
        return "its in_proj_weight is a parameter of its own, not a layer"
    for known in CLASSES:
        if isinstance(module, known):
            return f"a subclass of {known.__name__} may compute something else"
    return f"fewbit has no quantized {kind.__name__}"


def _described(config: BaseConfig, module: nn.Module) -> str:
    if isinstance(module, nn.Embedding):
        return "NF4 rows" if config.weight.kind == "nf4" else "int8 rows"
    return f"{config.weight}, {config.inputs}"
