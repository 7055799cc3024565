"""``convert`` of a model that was trained with fake quantization."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from fewbit._fewbit import FewbitError
from fewbit.torch import encoders
from fewbit.torch.layers import Unsupported, base_type, convert_layer
from fewbit.torch.layers.stored_weight import StoredWeight
from fewbit.torch.module_copy import copy_module
from fewbit.torch.qat import adapters
from fewbit.torch.qat.config import BaseConfig
from fewbit.torch.qat.inputs import StaticFakeQuantize
from fewbit.torch.qat.layers import FakeQuantizedLayer, config_of, remove
from fewbit.torch.qat.recipe import recipe_of
from fewbit.torch.replacement import with_replaced
from fewbit.torch.report import ConversionReport, ModuleReport, attach_report


def is_prepared_for_training(model: nn.Module) -> bool:
    """Whether a model has fake-quantized layers."""
    return any(isinstance(module, FakeQuantizedLayer) for module in model.modules())


def convert_trained(model: nn.Module, inplace: bool = False) -> nn.Module:
    """The quantized model of a prepared one: see :func:`fewbit.torch.convert`."""
    conversion = _Conversion(model)
    converted = model if inplace else _shallow_copy(model)
    return conversion.finish(converted)


def _shallow_copy(model: nn.Module) -> nn.Module:
    """A copy that shares the tensors of ``model``, whose modules can be changed without changing it."""
    return copy_module(model, {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]})


class _Conversion:
    """What becomes of the fake-quantized layers of one model, found before anything is changed."""

    def __init__(self, model: nn.Module) -> None:
        layers = [(name, module) for name, module in model.named_modules() if isinstance(module, FakeQuantizedLayer)]
        trained = [(name, module) for name, module in layers if module.weight_fake_quant.has_run]
        if not trained:
            raise ValueError(
                "convert: expected a model that was trained after prepare_qat, found one that has run no step\n"
                "  hint: call it in training mode first; without training, `quantize_dynamic` or `prepare` and `calibrate` quantize a model"
            )
        off = [name for name, module in layers if not module.weight_fake_quant.is_enabled()]
        if off:
            warnings.warn(
                f"fake quantization of {len(off)} layers was off, such as {off[0] or 'the model'}: the last steps did not train what is written", stacklevel=4
            )
        self.configs: dict[str, BaseConfig] = {}
        self.stored: dict[str, StoredWeight] = {}
        self.ranges: dict[str, tuple[float, int]] = {}
        self.report = ConversionReport()
        shared: dict[Any, StoredWeight] = {}
        for name, module in layers:
            weight: Any = module.float_matrix()
            if weight.device.type != "cpu":
                raise FewbitError(f"{name or 'the model'}: expected weights on the CPU, found them on {weight.device}\n  hint: convert(model.cpu())")
            self.configs[name] = config_of(module)
            stored = module.stored()
            # Layers that share a weight share its codes, where these are the same.
            key = (weight.data_ptr(), type(stored), module.weight_fake_quant.__class__)
            if key in shared and _are_same(shared[key], stored):
                stored = shared[key]
            shared[key] = stored
            self.stored[name] = stored
            inputs = module.input_fake_quant
            if isinstance(inputs, StaticFakeQuantize):
                self.ranges[name] = inputs.parameters_of_codes()
        for name, module in layers:
            if not module.weight_fake_quant.has_run:
                warnings.warn(f"{name} has run no step in training: its codes are those of the float weight", stacklevel=4)

    def finish(self, converted: nn.Module) -> nn.Module:
        """Exchanges the layers of ``converted``, the model or a copy of it."""
        converted = self._restore(converted)
        modules = dict(converted.named_modules())
        replaced: dict[nn.Module, nn.Module] = {}
        inside: set[nn.Module] = set()
        for name, encoder in encoders.encoders_in(converted):
            prefix = f"{name}." if name else ""
            names = [layer for layer in self.stored if layer.startswith(prefix)]
            if not names:
                continue
            found = self._swapped(encoder, prefix, names, converted)
            if isinstance(found, str):
                self._tell(name, encoder, "layers", f"not run whole: {found}")
                continue
            replaced[encoder] = found
            inside.update(encoder.modules())
            methods = " and ".join(sorted({self.configs[layer].method for layer in names}))
            self._tell(name, encoder, "swapped", f"{methods}, with the codes of training; run whole by the native executor")
        for name, module in modules.items():
            if module in inside:
                continue
            if name in self.stored:
                self._layer(name, module, replaced)
            elif any(True for _ in module.parameters(recurse=False)):
                self._tell(name, module, "float", "not fake-quantized")
        self._note_ties(converted, replaced)
        result = with_replaced(converted, replaced, inplace=True).eval()
        attach_report(result, self.report)
        return result

    def _restore(self, converted: nn.Module) -> nn.Module:
        """Float layers in the places of fake-quantized ones; adapters are merged."""
        merged: dict[nn.Module, nn.Module] = {}
        for module in list(converted.modules()):
            if isinstance(module, FakeQuantizedLayer):
                if hasattr(module, "lora_A"):
                    merged[module] = adapters.merged(module)
                else:
                    remove(module)
        for parent in list(converted.modules()):
            for name, child in parent._modules.items():
                if child is not None and child in merged:
                    parent._modules[name] = merged[child]
        if not merged:
            return converted
        inner = adapters.without_wrapper(converted)
        if inner is not converted:
            # The names of layers are those inside of the wrapper.
            outer = next(name for name, module in converted.named_modules() if module is inner)
            for known in (self.configs, self.stored, self.ranges):
                renamed = {name.removeprefix(f"{outer}."): value for name, value in known.items()}
                known.clear()
                known.update(renamed)  # type: ignore[arg-type]
            return inner
        return converted.get_submodule("") if converted not in merged else merged[converted]

    def _swapped(self, encoder: nn.Module, prefix: str, names: list[str], root: nn.Module) -> nn.Module | str:
        """The native encoder with the codes of its layers, or the reason why there is none."""
        own = {name[len(prefix) :]: name for name in names}
        tables = {part for part, name in own.items() if isinstance(root.get_submodule(name), nn.Embedding)}
        found = recipe_of(
            {part: self.configs[name] for part, name in own.items() if part not in tables}, {part: self.configs[name] for part, name in own.items() if part in tables}
        )
        if isinstance(found, str):
            return found
        method: str = found.pop("method")
        linear = [name for name, part in encoder.named_modules() if isinstance(part, nn.Linear) and name.split(".")[0] != "pooler"]
        skip = [name for name in linear if name not in own]
        options: dict[str, Any] = {**found, "skip": skip} if skip else found
        if method == "static":
            options["static_inputs"] = {
                part: {"scale": self.ranges[name][0], "zero_point": self.ranges[name][1]} for part, name in own.items() if name in self.ranges
            }
        codes = {part: self.stored[name] for part, name in own.items()}
        return encoders.swap(encoder, method, root=root, codes=codes, **options)

    def _layer(self, name: str, module: nn.Module, replaced: dict[nn.Module, nn.Module]) -> None:
        config = self.configs[name]
        is_table = isinstance(module, nn.Embedding)
        method = "weight-only" if is_table and config.weight.kind != "nf4" else config.method
        settings: dict[str, Any] = {}
        if name in self.ranges:
            settings = {"input_scale": self.ranges[name][0], "input_zero_point": self.ranges[name][1]}
        try:
            replaced[module] = convert_layer(module, method, stored=self.stored[name], **settings)
        except Unsupported as reason:
            self._tell(name, module, "float", str(reason))
            warnings.warn(f"{name or 'the model'} ({base_type(module).__name__}) stays float: {reason}", stacklevel=5)
            return
        self._tell(name, module, "quantized", f"{config.method}, with the codes of training")

    def _note_ties(self, model: nn.Module, replaced: dict[nn.Module, nn.Module]) -> None:
        """Warns of weights that several modules share and that are one no longer."""
        owners: dict[int, list[tuple[str, nn.Module]]] = {}
        for name, module in model.named_modules():
            for parameter in module.parameters(recurse=False):
                owners.setdefault(id(parameter), []).append((name, module))
        new = {part: replacement for old, replacement in replaced.items() for part in old.modules()}
        for sharing in owners.values():
            holders = [new.get(module) for _, module in sharing]
            first = next((holder for holder in holders if holder is not None), None)
            if first is None or all(holder is first or (holder is not None and _share(holder, first)) for holder in holders):
                continue
            names = " and ".join(name or "the model" for name, _ in sharing)
            warnings.warn(f"{names} shared a weight and do so no longer: quantized and float copies of it are separate", stacklevel=5)

    def _tell(self, name: str, module: nn.Module, action: str, reason: str) -> None:
        self.report.append(ModuleReport(name, base_type(module).__name__, action, reason))


def _share(one: nn.Module, other: nn.Module) -> bool:
    mine, others = getattr(one, "stored", None), getattr(other, "stored", None)
    return mine is not None and mine is others


def _are_same(one: StoredWeight, other: StoredWeight) -> bool:
    mine, others = one.tensors(), other.tensors()
    return mine.keys() == others.keys() and all(mine[name].equal(others[name]) for name in mine)
