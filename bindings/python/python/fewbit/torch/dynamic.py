"""``quantize_dynamic`` with the arguments of ``torch.ao.quantization.quantize_dynamic``."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fewbit._fewbit import FewbitError
from fewbit.torch import encoders
from fewbit.torch.layers import QuantizedLayer, Unsupported, base_type, convert_layer, supported_type
from fewbit.torch.layers.convert import SharedWeights
from fewbit.torch.replacement import with_replaced
from fewbit.torch.report import ConversionReport, ModuleReport, attach_report
from fewbit.torch.static import is_prepared

#: torch's engines whose arithmetic can be asked for, and whether the scale of an input is that of 7 bits.
_BACKENDS = {"fbgemm": True, "x86": True, "onednn": True, "qnnpack": False}

_METHODS = {
    "int8": "dynamic",
    "qint8": "dynamic",
    "dynamic": "dynamic",
    "weight-only": "weight-only",
    "float16": "fp16",
    "fp16": "fp16",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "nf4": "nf4",
    "fp4": "fp4",
}

_WORDS = {
    "dynamic": "int8 weights, inputs quantized as they come",
    "weight-only": "int8 weights",
    "fp16": "float16 weights",
    "bf16": "bfloat16 weights",
    "nf4": "NF4 weights",
    "fp4": "FP4 weights",
}


def quantize_dynamic(
    model: nn.Module,
    qconfig_spec: Any = None,
    dtype: Any = "int8",
    mapping: Any = None,
    inplace: bool = False,
    *,
    backend: str | None = None,
    block_size: int = 64,
    double_quant: bool = False,
) -> nn.Module:
    """A copy of ``model`` in evaluation mode whose layers fewbit runs with few bits.

    Every transformers encoder in it that fewbit knows becomes a native encoder, where all of its linear layers are asked for; other layers become native
    layers one by one. :func:`fewbit.torch.report_of` says of each module what became of it, and why.

    Args:
        model: Any module on the CPU; it may be a single layer.
        qconfig_spec: Which modules: a set of types and names of modules, as in torch: a name or type stands for all layers inside. Or a dict
            of these to a dtype, a QConfig of ``torch.ao``, or ``None`` for modules that stay float. By default all linear layers.
            A type means exactly this type; a subclass has to be named. transformers' ``Conv1D`` counts as ``nn.Linear``.
        dtype: ``torch.qint8`` or ``"int8"``, ``torch.float16``, ``torch.bfloat16``, ``"weight-only"`` (int8 weights, inputs of 12 bits),
            ``"nf4"`` or ``"fp4"``.
        mapping: Must be ``None``: fewbit has its own modules.
        inplace: Whether to change ``model`` itself. A model that is itself one layer cannot be; the new layer is returned.
        backend: ``"x86"``, ``"fbgemm"``, ``"qnnpack"`` or ``"onednn"`` for the arithmetic of ``torch.ao.quantization`` in linear layers, to confirm a
            move: one scale for a weight, one for a whole input with everything that is in its batch. By default each output and each token has its own.
        block_size: Elements that share an absmax, with ``"nf4"`` and ``"fp4"``.
        double_quant: Whether absmax values are quantized, too.

    Raises:
        ValueError: An option that does not exist, or a name that no module has.
        FewbitError: A weight has NaN or infinity.

    >>> import torch
    >>> import fewbit.torch
    >>> quantized = fewbit.torch.quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU()))
    >>> quantized(torch.ones(2, 8)).shape
    torch.Size([2, 4])
    >>> print(fewbit.torch.report_of(quantized))
    module  type    action     reason
    ----------------------------------------------------------------------
    0       Linear  quantized  int8 weights, inputs quantized as they come
    """
    if not isinstance(model, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"model: expected an nn.Module, found {type(model).__name__}")
    if is_prepared(model):
        raise ValueError("quantize_dynamic: expected a float model, found one with observers\n  hint: `convert` makes the static model of it")
    if mapping is not None:
        raise ValueError("mapping: expected None, found a mapping\n  hint: fewbit has one native module for each type; leave types out of qconfig_spec")
    if backend is not None and backend not in _BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(_BACKENDS)}, found {backend!r}")
    conversion = _Conversion(model, _spec_of(model, qconfig_spec, dtype), backend, {"block_size": block_size, "double_quant": double_quant})
    conversion.visit(model, "", None)
    conversion.note_ties(model)
    for text in conversion.warnings:
        warnings.warn(text, stacklevel=2)
    result = with_replaced(model, conversion.replaced, inplace).eval()
    attach_report(result, conversion.report)
    return result


def method_of(dtype: Any) -> str:
    """The method that a dtype of torch, a word, or a QConfig of ``torch.ao`` asks for."""
    weight: Any = getattr(dtype, "weight", None)
    if callable(weight) and hasattr(dtype, "activation"):
        observer: Any = weight()
        return method_of(observer.dtype)
    word = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else None
    method = _METHODS.get(word) if word is not None else None
    if method is None:
        raise ValueError(f"dtype: expected torch.qint8, torch.float16, torch.bfloat16, or one of {', '.join(_METHODS)}, found {dtype!r}")
    return method


def _spec_of(model: nn.Module, qconfig_spec: Any, dtype: Any) -> dict[Any, str | None]:
    """The method of each type and each name that was given."""
    if qconfig_spec is None:
        qconfig_spec = {nn.Linear}
    if isinstance(qconfig_spec, Mapping):
        spec: dict[Any, str | None] = {key: None if value is None else method_of(value) for key, value in qconfig_spec.items()}
    elif isinstance(qconfig_spec, (set, frozenset, list, tuple)):
        spec = dict[Any, str | None].fromkeys(qconfig_spec, method_of(dtype))
    else:
        raise ValueError(f"qconfig_spec: expected a set of types and names, or a dict of them, found {type(qconfig_spec).__name__}")
    names = {name for name, _ in model.named_modules(remove_duplicate=False)}
    for key in spec:
        if isinstance(key, str) and key not in names:
            raise ValueError(f"qconfig_spec: expected names of modules, found {key!r}\n  hint: model.named_modules() lists them")
        if not isinstance(key, str) and not (isinstance(key, type) and issubclass(key, nn.Module)):
            raise ValueError(f"qconfig_spec: expected types of modules and names, found {key!r}")
    return spec


@dataclass
class _Conversion:
    """What becomes of the modules of one model."""

    root: nn.Module
    spec: dict[Any, str | None]
    backend: str | None
    four_bit: dict[str, Any]
    report: ConversionReport = field(default_factory=ConversionReport)
    warnings: list[str] = field(default_factory=list)
    #: Modules, and what takes their places.
    replaced: dict[nn.Module, nn.Module] = field(default_factory=dict)
    shared: SharedWeights = field(default_factory=dict)
    seen: dict[int, str] = field(default_factory=dict)

    def visit(self, module: nn.Module, name: str, inherited: str | None) -> None:
        """Decides about ``module`` and what is in it; ``inherited`` is the method of the module around it."""
        if id(module) in self.seen:
            if any(True for _ in module.parameters(recurse=False)):
                first = self.seen[id(module)]
                self._tell(name, module, self.report.of(first).action, f"the same module as {first or 'the model'}")
            return
        self.seen[id(module)] = name
        if isinstance(module, QuantizedLayer):
            self._tell(name, module, "quantized", f"it was before: {_WORDS.get(module.method, module.method)}")
            return
        kind = supported_type(module)
        method = self.spec.get(base_type(module), inherited)
        if kind is not None and base_type(module) is kind and kind.__name__ == "Conv1D" and kind not in self.spec:
            method = self.spec.get(nn.Linear, method)
        method = self.spec.get(name, method)
        is_asked_for = name in self.spec or base_type(module) in self.spec
        if self._is_swapped(module, name, method):
            return
        if kind is not None and method is not None and (is_asked_for or base_type(module) is kind):
            self._convert(module, name, method)
            return
        has_parameters = any(True for _ in module.parameters(recurse=False))
        if kind is not None or has_parameters or (is_asked_for and not any(True for _ in module.children())):
            reason = self._reason_for_float(module, kind, is_asked_for and method is not None, name)
            self._tell(name, module, "float", reason)
            if is_asked_for and method is not None:
                self.warnings.append(f"{name or 'the model'} ({base_type(module).__name__}) stays float: {reason}")
        for child_name, child in _children(module):
            self.visit(child, f"{name}.{child_name}" if name else child_name, method)

    def _is_swapped(self, module: nn.Module, name: str, method: str | None) -> bool:
        """Puts a native encoder in the place of a whole one, if ``module`` is one and all of it is asked for."""
        if not encoders.is_encoder(module):
            return False
        method = self.spec.get(nn.Linear, method)
        inner = [key for key in self.spec if isinstance(key, str) and key.startswith(f"{name}." if name else "") and key != name]
        if method is None:
            reason: str | nn.Module = "its linear layers are not asked for"
        elif self.backend is not None:
            reason = f"the arithmetic of {self.backend} is that of single layers"
        elif inner:
            reason = f"{inner[0]} is asked for by its name"
        else:
            reason = encoders.swap(module, method, root=self.root, quantize_embeddings=self.spec.get(nn.Embedding) is not None, **self._options(method))
        if isinstance(reason, nn.Module):
            self.replaced[module] = reason
            self._tell(name, module, "swapped", f"{_WORDS[method or 'dynamic']}; run whole by the native executor")
            return True
        self._tell(name, module, "layers", f"not run whole: {reason}")
        return False

    def _options(self, method: str) -> dict[str, Any]:
        return self.four_bit if method in ("nf4", "fp4") else {}

    def _convert(self, module: nn.Module, name: str, method: str) -> None:
        options = self._options(method)
        try:
            if self.backend is not None:
                options = self._options_of_backend(module, method)
            layer: nn.Module = convert_layer(module, method, shared=self.shared, **options)
        except Unsupported as reason:
            self._tell(name, module, "float", str(reason))
            self.warnings.append(f"{name or 'the model'} ({base_type(module).__name__}) stays float: {reason}")
            return
        except FewbitError as error:
            raise FewbitError(f"{name or 'the model'}, {error}") from error
        self.replaced[module] = layer
        words = _WORDS["weight-only" if isinstance(module, nn.Embedding) and method == "dynamic" else method]
        if self.backend is not None:
            words += f", with the arithmetic of {self.backend}"
        self._tell(name, module, "quantized", words)

    def _options_of_backend(self, module: nn.Module, method: str) -> dict[str, Any]:
        assert self.backend is not None
        if not isinstance(module, nn.Linear):
            raise Unsupported(f"torch has no dynamic {base_type(module).__name__}, whose results backend={self.backend!r} could give")
        if method == "fp16":
            return {}
        if method != "dynamic":
            raise Unsupported(f"torch has no dynamic layers of {method}, whose results backend={self.backend!r} could give")
        return {"per_tensor": True, "activations": "per-tensor-7-bit" if _BACKENDS[self.backend] else "per-tensor"}

    def _reason_for_float(self, module: nn.Module, kind: type[nn.Module] | None, is_asked_for: bool, name: str) -> str:
        own = base_type(module)
        if isinstance(module, nn.MultiheadAttention):
            return "its in_proj_weight is a parameter of its own, not a layer"
        if isinstance(module, nn.EmbeddingBag):
            return "fewbit has no quantized EmbeddingBag"
        if isinstance(module, nn.RNNBase | nn.RNNCellBase):
            return f"fewbit has no quantized {own.__name__}"
        if kind is not None and own is not kind:
            return f"a subclass of {kind.__name__}: add {own.__name__} or {name!r} to qconfig_spec to convert it"
        return f"fewbit has no quantized {own.__name__}" if is_asked_for else "not asked for"

    def _tell(self, name: str, module: nn.Module, action: str, reason: str) -> None:
        self.report.append(ModuleReport(name, base_type(module).__name__, action, reason))

    def note_ties(self, model: nn.Module) -> None:
        """Warns of weights that several modules share and that are one no longer."""
        owners: dict[int, list[tuple[str, nn.Module]]] = {}
        for name, module in model.named_modules():
            for parameter in module.parameters(recurse=False):
                owners.setdefault(id(parameter), []).append((name, module))
        new = {part: replacement for old, replacement in self.replaced.items() for part in old.modules()}
        for sharing in owners.values():
            holders = [new.get(module) for _, module in sharing]
            first = next((holder for holder in holders if holder is not None), None)
            if first is None or all(_holds_the_same(holder, first) for holder in holders):
                continue
            names = " and ".join(name or "the model" for name, _ in sharing)
            self.warnings.append(f"{names} shared a weight and do so no longer: quantized and float copies of it are separate, and changes of one do not reach the other")


def _holds_the_same(module: nn.Module | None, other: nn.Module) -> bool:
    """Whether two modules that were put in the place of owners of one weight are one, or share its codes."""
    return module is other or (isinstance(module, QuantizedLayer) and isinstance(other, QuantizedLayer) and module.stored is other.stored)


def _children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Children by all of their names: unlike ``named_children``, which tells of a module once."""
    return ((name, child) for name, child in module._modules.items() if child is not None)
