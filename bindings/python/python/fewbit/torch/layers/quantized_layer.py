"""What all quantized layers have in common: their weight, their state, their life."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fewbit._fewbit import FewbitError
from fewbit.torch.layers import operators
from fewbit.torch.layers.frozen_tensor import FrozenTensor
from fewbit.torch.layers.stored_weight import Activations, HalfWeight, StoredWeight, describe, restore

#: The last part of the key under which a ``state_dict`` describes a quantized layer. It is among the unexpected keys when such a ``state_dict`` is
#: loaded into a float model, and names the function that can load it.
DESCRIPTION_KEY = "fewbit.torch.load_state_dict"

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
# Not typed in torch.
_functorch: Any = getattr(torch._C, "_functorch")  # noqa: B009
_jit: Any = torch.jit


class Unsupported(Exception):
    """A module stays as it is; the text says why."""


class QuantizedLayer(nn.Module):
    """A layer that fewbit runs. ``weight`` and ``bias`` can be read as float tensors, not changed."""

    #: The word for this kind of layer in a ``state_dict``.
    kind: str

    def _hold(self, stored: StoredWeight, bias: Tensor | None, *, method: str, activations: Activations, dtype: torch.dtype) -> None:
        """The end of a constructor, when sizes are known."""
        self.method = method
        self._activations: Activations = activations
        self._stored = stored
        self._bias = None if bias is None else bias.detach().to(torch.float32, copy=True).contiguous()
        self._dtype = dtype
        self._settle()

    def _settle(self) -> None:
        """Makes what follows from the weight and the bias, and is neither copied nor pickled."""
        self._number = operators.number_of(self)  # pyright: ignore[reportArgumentType]
        self._native: Any = None
        weight, bias = self._stored, self._bias
        view = self._view()
        shape = view(torch.empty(()).expand(describe(weight)["matrix"])).shape
        frozen: dict[str, Tensor | None] = {"weight": FrozenTensor(lambda: view(weight.matrix()), shape, self._dtype, weight.device)}
        frozen["bias"] = None if bias is None else FrozenTensor(lambda: bias, bias.shape, self._dtype, bias.device)
        for name, tensor in frozen.items():
            self._parameters[name] = None if tensor is None else nn.Parameter(tensor, requires_grad=False)

    def _view(self) -> Callable[[Tensor], Tensor]:
        """What brings the matrix of the stored weight into the shape of ``weight``. It must not hold the layer, which holds it."""
        return _as_it_is

    def _sizes(self) -> dict[str, Any]:
        """The constructor's sizes and settings: what a ``state_dict`` says of the layer, and must agree with it."""
        raise NotImplementedError

    def _pack(self) -> Any:
        """The native layer, or ``None`` where there is nothing to compute."""
        raise NotImplementedError

    def compute(self, x: Tensor) -> Tensor:
        """The outputs for ``x``, without gradients and autocast."""
        raise NotImplementedError

    def native(self) -> Any:
        """The native layer, packed when it is first asked for."""
        if self._native is None:
            self._native = self._pack()
        return self._native

    @property
    def weight(self) -> Tensor:
        """The weight that the layer computes with, dequantized whenever it is read."""
        weight = self._parameters["weight"]
        assert weight is not None
        return weight

    @property
    def bias(self) -> Tensor | None:
        """The bias."""
        return self._parameters["bias"]

    @property
    def stored(self) -> StoredWeight:
        """Codes and scales."""
        return self._stored

    @property
    def activations(self) -> Activations:
        """How inputs are quantized: ``per-token``, ``per-tensor``, ``per-tensor-7-bit``, ``float``, or (scale, zero point, 7 bits)."""
        return self._activations

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("weight", "bias"):
            raise AttributeError(
                f"{name}: expected a layer that can be changed, found {type(self).__name__}\n"
                f"  hint: set it in the float model and quantize that again"
            )
        super().__setattr__(name, value)

    # What runs.

    def _runs_at_once(self, x: Tensor) -> bool:
        """Whether nobody looks on who needs an operator: no compiler, no tracer, no transform, no gradient."""
        return (
            not torch.compiler.is_compiling()
            and type(x) is Tensor
            and not (x.requires_grad and torch.is_grad_enabled())
            and not _jit.is_tracing()
            and not _functorch.is_functorch_wrapped_tensor(x)
        )

    def _floats_of(self, x: Tensor) -> Tensor:
        """``x`` in float32."""
        if x.device.type != "cpu":
            raise FewbitError(f"{type(self).__name__}: expected a tensor on the CPU, found one on {x.device}\n  hint: move it with .to('cpu')")
        if x.dtype not in _FLOATS:
            raise FewbitError(f"{type(self).__name__}: expected float32, float16 or bfloat16, found {x.dtype}\n  hint: .float() converts it")
        return x.detach() if x.dtype is torch.float32 else x.detach().to(torch.float32)

    @staticmethod
    def _follow_autocast(y: Tensor) -> Tensor:
        """``y`` in the dtype that a float layer would give under autocast."""
        kind = y.device.type
        # There is no autocast for tensors without values.
        return y.to(torch.get_autocast_dtype(kind)) if kind != "meta" and torch.is_autocast_enabled(kind) else y

    # Life.

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in ("_native", "_number"):
            del state[name]
        state["_parameters"] = {}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__setstate__(self, state)  # type: ignore[no-untyped-call]
        self._settle()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedLayer:
        probe: Any = fn(torch.zeros(1, dtype=self._dtype, device=self._stored.device))
        if probe.is_shared() and probe.device.type == "cpu":
            held: list[Any] = [*self._stored.tensors().values(), *([] if self._bias is None else [self._bias])]
            for tensor in held:
                tensor.share_memory_()
        if probe.dtype == self._dtype and probe.device == self._stored.device:
            return self
        if not isinstance(self._stored, HalfWeight) or probe.dtype not in _FLOATS:
            raise FewbitError(
                f"{type(self).__name__} ({self.method}): expected to stay {self._dtype} on the CPU, found a move to {probe.dtype} on {probe.device}\n"
                "  hint: move or convert the float model first and quantize it afterwards; inputs of float16 and bfloat16 are taken as they are"
            )
        self._stored = self._stored.to(probe.device)
        self._bias = None if self._bias is None else self._bias.to(probe.device)
        self._dtype = probe.dtype
        self._settle()
        return self

    # State.

    def _description(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "method": self.method,
            "activations": self._activations,
            "dtype": str(self._dtype).removeprefix("torch."),
            "bias": self._bias is not None,
            "weight": describe(self._stored),
            **self._sizes(),
        }

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        for name, tensor in self._stored.tensors().items():
            destination[prefix + name] = tensor
        if self._bias is not None:
            destination[prefix + "bias"] = self._bias
        text = json.dumps(self._description())
        destination[prefix + DESCRIPTION_KEY] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        own = {key[len(prefix) :]: tensor for key, tensor in state_dict.items() if key.startswith(prefix)}
        if DESCRIPTION_KEY not in own:
            if "weight" in own:
                error_msgs.append(
                    f"{prefix}weight: expected the state of a quantized layer, found {own['weight'].dtype} without a description\n"
                    "  hint: load floats into the float model and quantize that; fewbit.torch.quantize_dynamic does"
                )
            else:
                missing_keys.append(prefix + "weight")
            return
        try:
            found = read_description(own.pop(DESCRIPTION_KEY), prefix)
            expected = json.loads(json.dumps(self._description()))
            for name in expected:
                # Which numbers an input is quantized with is what is loaded.
                if found.get(name) != expected[name] and not (name == "activations" and isinstance(found.get(name), list)):
                    raise FewbitError(f"{name}: expected {expected[name]}, found {found.get(name)}")
            stored = restore(found["weight"], own)
            bias = own.get("bias")
            if self._bias is not None and (bias is None or bias.shape != self._bias.shape):
                raise FewbitError(f"bias: expected {tuple(self._bias.shape)}, found {None if bias is None else tuple(bias.shape)}")
        except FewbitError as error:
            error_msgs.append(f"{prefix}{error}")
            return
        if strict:
            known = {*stored.tensors(), *(["bias"] if self._bias is not None else [])}
            unexpected_keys.extend(prefix + name for name in own if name not in known)
        self._take(stored, bias, activations_of(found), assign=bool(local_metadata.get("assign_to_params_buffers", False)))

    def _take(self, stored: StoredWeight, bias: Tensor | None, activations: Activations, *, assign: bool) -> None:
        if not assign:
            # The tensors that are loaded stay those of whoever loads them.
            stored = restore(describe(stored), {name: tensor.clone() for name, tensor in stored.tensors().items()})
        self._stored = stored
        self._activations = activations
        if bias is not None:
            self._bias = bias.detach().to(torch.float32, copy=True).contiguous()
        self._settle()


def _as_it_is(matrix: Tensor) -> Tensor:
    return matrix


def read_description(tensor: Any, prefix: str) -> dict[str, Any]:
    """What the tensor of :data:`DESCRIPTION_KEY` says.

    Raises:
        FewbitError: It is damaged.
    """
    try:
        description = json.loads(bytes(tensor.to(torch.uint8).cpu().numpy().tobytes()))
        if not all(isinstance(word, str) for word in (description["kind"], description["method"], description["weight"]["format"])):
            raise TypeError("a word is not a text")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FewbitError(f"{prefix}{DESCRIPTION_KEY}: expected the description of a quantized layer, found {error!r}") from error
    result: dict[str, Any] = description
    return result


def activations_of(description: dict[str, Any]) -> Activations:
    """How inputs are quantized, of JSON."""
    found: Any = description["activations"]
    if isinstance(found, list):
        scale, zero_point, seven_bits = found
        return float(scale), int(zero_point), bool(seven_bits)
    return str(found)
