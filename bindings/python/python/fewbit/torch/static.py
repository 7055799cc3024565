"""Static quantization by PyTorch's three steps: ``prepare``, run data, ``convert``."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from fewbit import _fewbit
from fewbit.torch import encoders
from fewbit.torch.batches import batches
from fewbit.torch.layers import Unsupported, convert_layer
from fewbit.torch.layers.convert import supported_type
from fewbit.torch.module_copy import copy_module
from fewbit.torch.qconfig import QConfig, get_default_qconfig, read_qconfig
from fewbit.torch.replacement import with_replaced
from fewbit.torch.report import ConversionReport, ModuleReport, attach_report

_PREPARED = "_fewbit_prepared"


class _Calibration:
    """What the inputs of a prepared model's layers have shown."""

    def __init__(self, qconfig: QConfig, backend: str, statistics: str | None = None) -> None:
        self.qconfig = qconfig
        self.backend = backend
        # Names of layers that stay float as their qconfig is None.
        self.excluded: set[str] = set()
        self.native = _fewbit.Calibration(qconfig.to_json(), statistics)
        # `mask` is that of the encoder that is running: 0 where a token is left out. Replicas of a model run in threads of their own.
        self.running = threading.local()

    def observe(self, layer: str, values: torch.Tensor) -> None:
        """Takes in the inputs of a layer, channels last."""
        rows = values.detach()
        mask: torch.Tensor | None = getattr(self.running, "mask", None)
        if mask is not None and rows.dim() == 3 and rows.shape[:2] == mask.shape:
            # The native encoder computes nothing where there is padding.
            rows = rows[mask != 0]
        rows = rows.reshape(-1, rows.shape[-1]).to("cpu", torch.float32).contiguous()
        self.native.observe(layer, rows.numpy())

    def decided(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.native.decide(self.backend))
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"qconfig": self.qconfig, "backend": self.backend, "statistics": self.native.statistics(), "excluded": self.excluded}

    def __setstate__(self, state: dict[str, Any]) -> None:
        excluded = state.pop("excluded")
        vars(self).update(vars(_Calibration(**state)))
        self.excluded = excluded


class _ObserveInput:
    """A forward pre-hook on a layer."""

    def __init__(self, calibration: _Calibration, layer: str) -> None:
        self.calibration, self.layer = calibration, layer

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], torch.Tensor):
            values = inputs[0]
            if isinstance(module, (nn.Conv1d, nn.Conv2d)):
                values = values.movedim(-1 - len(module.kernel_size), -1)
            self.calibration.observe(self.layer, values)


class _NoteMask:
    """A forward pre-hook on an encoder."""

    def __init__(self, calibration: _Calibration) -> None:
        self.calibration = calibration

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        mask = named.get("attention_mask", inputs[1] if len(inputs) > 1 else None)
        if isinstance(mask, torch.Tensor) and mask.numel() and not bool((mask != 0).any()):
            raise ValueError("attention_mask: expected a token that counts, found zeros alone\n  hint: 1 marks tokens and 0 padding")
        self.calibration.running.mask = mask if isinstance(mask, torch.Tensor) and mask.dim() == 2 else None


class _ForgetMask:
    """A forward hook on an encoder."""

    def __init__(self, calibration: _Calibration) -> None:
        self.calibration = calibration

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.calibration.running.mask = None


def prepare(model: nn.Module, qconfig: Any = None, backend: str = "fbgemm", inplace: bool = False) -> nn.Module:
    """A copy of ``model`` in eval mode whose linear layers and convolutions have observers on their inputs.

    Run data through it, by itself or by :func:`calibrate`, and give it to :func:`convert`. It computes in floats what the model computes.
    Inside of an encoder that fewbit runs, tokens that ``attention_mask`` leaves out are not observed: they are not computed afterwards.

    Args:
        model: The float model, as a whole, so that what follows an encoder is calibrated too.
        qconfig: Observers, of :func:`get_default_qconfig` or PyTorch's; by default ``model.qconfig`` if there is one, else those of ``backend``.
            As in PyTorch a ``qconfig`` of ``None`` on a module leaves it and what is in it float, and where only modules inside of the
            model have one, all others stay float.
        backend: ``native``, ``fbgemm``, ``x86``, ``qnnpack`` or ``onednn``: whose observers, and whether inputs stay dynamic that one range
            would cost too much (``native``) or all are static (PyTorch's).
        inplace: Whether the model itself gets the observers.

    Raises:
        ValueError: There is no such backend, nothing to observe, modules that ask for different observers, or observers are there already.
    """
    if is_prepared(model):
        raise ValueError("prepare: expected a float model, found one with observers\n  hint: run data through it and `convert` it")
    found = _qconfig_of(model, qconfig)
    calibration = _Calibration(get_default_qconfig(backend) if found is None else found, backend)
    prepared = model if inplace else copy_module(model, {})
    prepared.eval()
    with_qconfig = _modules_with_qconfig(prepared, qconfig is not None or found is None)
    layers = [(name, module) for name, module in prepared.named_modules() if _has_static_form(module)]
    calibration.excluded = {name for name, module in layers if module not in with_qconfig}
    observed = [(name, module) for name, module in layers if module in with_qconfig]
    if not observed:
        raise ValueError(f"prepare: expected a model with linear layers or convolutions, found {type(model).__name__} without one")
    for name, module in observed:
        module.register_forward_pre_hook(_ObserveInput(calibration, name))
    for _, encoder in encoders.encoders_in(prepared):
        encoder.register_forward_pre_hook(_NoteMask(calibration), with_kwargs=True)
        encoder.register_forward_hook(_ForgetMask(calibration), always_call=True)
    prepared.__dict__[_PREPARED] = calibration
    return prepared


def _qconfig_of(model: nn.Module, given: Any) -> QConfig | None:
    """The one qconfig that the caller, or modules of the model, ask for; ``None`` if nobody does."""
    asked_for = [(name, module.qconfig) for name, module in model.named_modules() if getattr(module, "qconfig", None) is not None]
    if given is not None:
        asked_for.insert(0, ("the argument", given))
    if not asked_for:
        return None
    first = read_qconfig(asked_for[0][1])
    for name, other in asked_for[1:]:
        if read_qconfig(other) != first:
            raise ValueError(
                f"{name}.qconfig: expected the observers of {asked_for[0][0] or 'the model'}, found others\n"
                "  hint: one qconfig holds for the whole model; `module.qconfig = None` leaves a module float"
            )
    return first


def _modules_with_qconfig(model: nn.Module, of_the_root: bool) -> set[nn.Module]:
    """Modules that a qconfig holds for: their own attribute says so, or that of the nearest module around them."""
    found: set[nn.Module] = set()

    def visit(module: nn.Module, inherited: bool) -> None:
        own = getattr(module, "qconfig", _UNSAID)
        holds = inherited if own is _UNSAID or (module is model and of_the_root) else own is not None
        if holds:
            found.add(module)
        for child in module.children():
            visit(child, holds)

    visit(model, of_the_root)
    return found


_UNSAID = object()


def calibrate(
    model: nn.Module,
    dataloader: Iterable[Any],
    tokenizer: Any = None,
    num_batches: int | None = None,
    device: str | torch.device = "cpu",
    use_student_input_ids: bool = False,
) -> None:
    """Runs batches through a prepared model.

    Args:
        model: What :func:`prepare` gave.
        dataloader: Dicts with the names that the model's ``forward`` takes, tuples of tensors, tensors, or texts.
        tokenizer: Makes tensors of texts.
        num_batches: No more than so many.
        device: Where the batches go; the device of the model.
        use_student_input_ids: Whether ``student_input_ids`` and ``student_attention_mask`` of a batch stand for its ids and mask.

    Raises:
        ValueError: The model is not prepared; a batch without what the model takes; no batch.
        FewbitError: NaN or infinity at the input of a layer.
    """
    _calibration_of(model)
    given = batches(
        model, dataloader, device=device, tokenizer=tokenizer, num_batches=num_batches, use_student_input_ids=use_student_input_ids
    )
    with torch.no_grad():
        for positional, named in given:
            model(*positional, **named)


def convert(model: nn.Module, inplace: bool = False) -> nn.Module:
    """The statically quantized model of a prepared one that has seen data: see :func:`fewbit.torch.convert`."""
    calibration = _calibration_of(model)
    if not calibration.native.layers():
        raise ValueError("Must call calibrate() first!\n  hint: run batches through the prepared model: `calibrate(model, dataloader)`, or call it")
    decided = calibration.decided()
    converted = model if inplace else _without_observers_copied(model)
    _remove_observers(converted)
    report = ConversionReport()
    replaced: dict[nn.Module, nn.Module] = {}
    swapped: set[nn.Module] = set()
    for name, encoder in encoders.encoders_in(converted):
        found = _swapped(name, encoder, converted, decided, calibration.excluded)
        if isinstance(found, str):
            report.append(ModuleReport(name, type(encoder).__name__, "layers", f"not run whole: {found}"))
            continue
        replaced[encoder] = found
        swapped.update(encoder.modules())
        report.append(ModuleReport(name, type(encoder).__name__, "swapped", f"static, {calibration.backend}"))
    for name, module in converted.named_modules():
        if module not in swapped and _has_static_form(module):
            report.append(_layer(name, module, decided, replaced, name in calibration.excluded))
    for module in report:
        if module.action == "float" and module.name not in calibration.excluded:
            warnings.warn(f"{module.name or 'the model'} ({module.type}) stays float: {module.reason}", stacklevel=2)
    result = with_replaced(converted, replaced, inplace=True)
    attach_report(result, report)
    return result


def is_prepared(model: nn.Module) -> bool:
    """Whether a model has observers."""
    return isinstance(model.__dict__.get(_PREPARED), _Calibration)


def _calibration_of(model: nn.Module) -> _Calibration:
    calibration = model.__dict__.get(_PREPARED)
    if not isinstance(calibration, _Calibration):
        raise ValueError(
            "Must call prepare() first!\n  hint: `prepare(model)` gives the model with observers; calibrate and convert take that one"
        )
    return calibration


def _without_observers_copied(model: nn.Module) -> nn.Module:
    """A copy that shares the tensors of ``model``, whose modules can be exchanged without changing it."""
    tensors = [*model.parameters(), *model.buffers()]
    memo: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
    calibration = model.__dict__[_PREPARED]
    memo[id(calibration)] = calibration
    return copy_module(model, memo)


def _remove_observers(model: nn.Module) -> None:
    for module in model.modules():
        for hooks, further in (
            (module._forward_pre_hooks, ("_forward_pre_hooks_with_kwargs",)),
            (module._forward_hooks, ("_forward_hooks_with_kwargs", "_forward_hooks_always_called")),
        ):
            ours = [key for key, hook in hooks.items() if isinstance(hook, (_ObserveInput, _NoteMask, _ForgetMask))]
            for key in ours:
                del hooks[key]
                for name in further:
                    getattr(module, name).pop(key, None)
    model.__dict__.pop(_PREPARED, None)


def _has_static_form(module: nn.Module) -> bool:
    """Whether a module can have one scale for its inputs. A subclass of a layer may compute something else."""
    kind = supported_type(module)
    return kind is not None and type(module) is kind and kind is not nn.Embedding


def _swapped(name: str, encoder: nn.Module, root: nn.Module, decided: dict[str, Any], excluded: set[str]) -> nn.Module | str:
    prefix = f"{name}." if name else ""
    # The convolution that some encoders have is float in every directory.
    own = {f"{prefix}{part}": part for part, module in encoder.named_modules() if isinstance(module, nn.Linear)}
    scales = {own[layer]: scale for layer, scale in decided["static_inputs"].items() if layer in own}
    # The pooler stays float, as it does in every directory.
    scales = {part: scale for part, scale in scales.items() if part.split(".")[0] != "pooler"}
    if not scales:
        return "calibration has seen none of its layers, or found none that does with one range"
    return encoders.swap(
        encoder,
        "static",
        root=root,
        static_inputs=scales,
        weight_scales=decided["weight_scales"],
        reduce_range=decided["reduce_range"],
        skip=sorted(own[layer] for layer in excluded if layer in own) or None,
    )


def _layer(name: str, module: nn.Module, decided: dict[str, Any], replaced: dict[nn.Module, nn.Module], excluded: bool) -> ModuleReport:
    kind = type(module).__name__
    if excluded:
        return ModuleReport(name, kind, "float", "its qconfig is None")
    scale = decided["static_inputs"].get(name)
    if scale is None and name not in {site["site"] for site in decided["sites"]}:
        return ModuleReport(name, kind, "float", "calibration has not seen it: it was not called as a module")
    try:
        if scale is None:
            # One range costs too much there.
            replaced[module] = convert_layer(module, "dynamic")
            return ModuleReport(name, kind, "quantized", "dynamic: one range for its inputs costs too much")
        replaced[module] = convert_layer(
            module,
            "static",
            input_scale=scale["scale"],
            input_zero_point=scale["zero_point"],
            per_tensor=decided["weight_scales"] == "per-tensor",
            reduce_range=decided["reduce_range"],
        )
    except Unsupported as reason:
        return ModuleReport(name, kind, "float", str(reason))
    return ModuleReport(name, kind, "quantized", "static")
