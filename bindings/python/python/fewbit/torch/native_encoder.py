"""A module that stands for a transformers encoder and computes it with fewbit."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import copy
import inspect
import itertools
import json
import os
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import nn

from fewbit import _fewbit
from fewbit.threads import resolve_threads
from fewbit.torch import encoder_directory
from fewbit.torch.hooks import HOOKS

#: A key of the state_dict by which PyTorch's error says what to do, when it is loaded into a model that was not converted. Its tensor is the
#: recipe of the encoder, as JSON.
MARKER = "convert_this_model_with_fewbit_torch_first"

# Not typed in torch.
_jit: Any = torch.jit

_numbers = itertools.count()
_encoders: weakref.WeakValueDictionary[int, NativeEncoder] = weakref.WeakValueDictionary()


class NativeEncoder(nn.Module):
    """Stands for a transformers ``BertModel``, ``ModernBertModel`` …: takes what its ``forward`` takes and returns what it returns.

    What it cannot compute natively (attention weights, embeddings as inputs, masks that are not (sequences, length), holes in the mask of
    models that know distances between tokens) it computes in floats with the quantized weights, as :meth:`dequantize` gives them, and warns
    once that it does; it then keeps those weights in memory.

    Hidden states are 0 where ``attention_mask`` leaves a token out. A sequence has the same bits in any batch, with any padding.

    Args:
        directory: A model directory that fewbit has written; it is not needed afterwards.
        encoder: The float model that the directory was made of.
        output_class: What its ``forward`` returns.
        recipe: What the directory was made by: the method and its options, by the keys of a recipe.
    """

    config: Any

    def __init__(self, directory: str, encoder: Any, output_class: type[Any], recipe: dict[str, Any]) -> None:
        super().__init__()
        self.config = copy.deepcopy(encoder.config)
        self.method: str = recipe["method"]
        self.model_class: type[nn.Module] = type(encoder)
        self.output_class = output_class
        self.main_input_name = "input_ids"
        self._dtype: torch.dtype = next(parameter.dtype for parameter in encoder.parameters() if parameter.is_floating_point())
        self._parameter_count = sum(parameter.numel() for parameter in encoder.parameters())
        self._files = encoder_directory.read_other_files(directory)
        self._names = [name for name in inspect.signature(self.model_class.forward).parameters if name not in ("self", "args", "kwargs")]
        self._network: _fewbit.Network | None = _fewbit.Network.open(directory)
        self._warned: set[str] = set()
        self._number = next(_numbers)
        _encoders[self._number] = self
        object.__setattr__(self, "_float", None)
        for name in ("pooler", "pooler_activation"):
            module = getattr(encoder, name, None)
            setattr(self, name, copy.deepcopy(module) if isinstance(module, nn.Module) else None)
        for name in HOOKS:
            getattr(self, name).update(getattr(encoder, name))
        tensors = encoder_directory.read_tensors(directory)
        # The first parameter is what says the dtype of a model.
        for name in sorted(tensors, key=lambda name: not tensors[name].is_floating_point()):
            if not self._is_of_a_child(name):
                self._hold(name, tensors[name])
        self.register_buffer(MARKER, torch.tensor(list(json.dumps(recipe).encode()), dtype=torch.uint8))
        self.training = encoder.training

    # What it holds.

    def _is_of_a_child(self, name: str) -> bool:
        return name.split(".")[0] in self._modules

    def _hold(self, name: str, tensor: torch.Tensor) -> None:
        # Names with dots, as they stand in the directory: `register_parameter` takes none, but nothing else minds.
        if name.rsplit(".", 1)[-1] in ("weight", "bias"):
            self._parameters[name] = nn.Parameter(tensor, requires_grad=False)
        else:
            self._buffers[name] = tensor

    def _own_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for held in (self._parameters, self._buffers):
            for name, tensor in held.items():
                if tensor is not None and name != MARKER:
                    yield name, tensor

    def _all_tensors(self) -> dict[str, torch.Tensor]:
        """Those of the directory: its own, and those of the float pooler."""
        tensors = dict(self._own_tensors())
        for name, module in self._modules.items():
            if module is not None:
                tensors.update(module.state_dict(prefix=f"{name}."))
        return tensors

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        own = dict(self._own_tensors())
        for name, tensor in own.items():
            key = prefix + name
            loaded = state_dict.get(key)
            if loaded is None:
                if strict:
                    missing_keys.append(key)
            elif loaded.shape != tensor.shape or loaded.dtype != tensor.dtype:
                error_msgs.append(
                    f"{key}: expected {tensor.dtype} {tuple(tensor.shape)}, found {loaded.dtype} {tuple(loaded.shape)}; "
                    f"the state_dict is of a model that was converted otherwise than by the method {self.method!r}"
                )
            elif loaded.is_floating_point() and not bool(torch.isfinite(loaded).all()):
                error_msgs.append(f"{key}: expected finite numbers, found NaN or infinity")
            else:
                with torch.no_grad():
                    tensor.copy_(loaded)
        if strict:
            for key in state_dict:
                name = key[len(prefix) :]
                if key.startswith(prefix) and name not in own and name != MARKER and not self._is_of_a_child(name):
                    unexpected_keys.append(key)
        self._network = None
        object.__setattr__(self, "_float", None)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.update(_network=None, _float=None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # Not typed in torch.
        self._number = next(_numbers)
        _encoders[self._number] = self

    def __deepcopy__(self, memo: dict[int, Any]) -> NativeEncoder:
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        # What is opened never changes.
        new._network = self._network
        return new

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            held = self.__dict__.get("_parameters", {})
            if any(known.startswith(f"{name}.") for known in held):
                raise AttributeError(
                    f"{name}: the parts of an encoder that fewbit runs as a whole are not there one by one\n"
                    "  hint: `dequantize()` gives the transformers model back"
                ) from None
            raise

    def _apply(self, fn: Any, recurse: bool = True) -> NativeEncoder:
        probe = fn(torch.zeros(1))
        if probe.device.type != "cpu" or probe.dtype != torch.float32:
            raise RuntimeError(
                f"a quantized encoder runs on the CPU and keeps its dtypes: it cannot be moved to {probe.device} as {probe.dtype}\n"
                "  hint: `dequantize()` gives the transformers model back, which can"
            )
        return self

    def train(self, mode: bool = True) -> NativeEncoder:
        """Sets the mode, as modules do; a forward pass in training mode raises."""
        super().train(mode)
        return self

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the float model, and of the hidden states."""
        return self._dtype

    def num_parameters(self, only_trainable: bool = False) -> int:
        """How many parameters the float model has; none of them is trainable here."""
        return 0 if only_trainable else self._parameter_count

    @property
    def memory_bytes(self) -> int:
        """Bytes of parameters that the native encoder holds in memory."""
        return self._opened().memory_bytes

    def extra_repr(self) -> str:
        """The class that it stands for, and the method."""
        return f"{self.model_class.__name__}, method={self.method!r}"

    # Directories.

    def save_pretrained(self, save_directory: str | os.PathLike[str], **_: Any) -> None:
        """Writes a standard model directory, which transformers and ``fewbit`` read; texts need the tokenizer's files beside it."""
        encoder_directory.write(os.fspath(save_directory), self._files, self._all_tensors())

    def _opened(self) -> _fewbit.Network:
        network = self._network
        if network is None:
            with encoder_directory.temporary_directory() as directory:
                self.save_pretrained(directory)
                network = self._network = _fewbit.Network.open(directory)
        return network

    def dequantize(self) -> nn.Module:
        """The transformers model with the weights that the quantized ones stand for, under its original keys; in eval mode, trainable."""
        with encoder_directory.temporary_directory() as directory:
            self.save_pretrained(directory)
            return encoder_directory.float_model(self.model_class, self.config, directory, self._all_tensors(), self._dtype)

    def _float_model(self) -> nn.Module:
        model: nn.Module | None = self.__dict__["_float"]
        if model is None:
            model = self.dequantize().requires_grad_(False)
            object.__setattr__(self, "_float", model)
        return model

    # Running.

    def forward(self, input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """What the model's ``forward`` returns.

        Args:
            input_ids: Token ids (sequences, length).
            attention_mask: 0 where a token is left out, (sequences, length).
            args: Further arguments, in the order of the model that it stands for.
            kwargs: Further arguments by their names.

        Raises:
            RuntimeError: In training mode.
            ValueError: Inputs of another shape, or on another device.
            FewbitError: An id or a position that the model does not have, a sequence without tokens.
        """
        if self.training:
            raise RuntimeError(
                "a quantized encoder cannot be trained: its weights are codes\n"
                "  hint: `.eval()` runs it; to train what comes after it, keep the encoder in eval mode; `dequantize()` gives the transformers model back"
            )
        arguments = dict(zip(self._names[2:], args))
        arguments.update(kwargs)
        return_dict = arguments.pop("return_dict", None)
        if return_dict is None:
            return_dict = getattr(self.config, "return_dict", True)
        all_states = arguments.pop("output_hidden_states", None)
        if all_states is None:
            all_states = getattr(self.config, "output_hidden_states", False)
        if arguments.get("output_attentions") is None:
            arguments["output_attentions"] = getattr(self.config, "output_attentions", False) or None
        token_type_ids = arguments.pop("token_type_ids", None)
        position_ids = arguments.pop("position_ids", None)
        others = [name for name, value in arguments.items() if value is not None and not (value is False and name in _SWITCHES)]
        if others or input_ids is None or not isinstance(all_states, bool) or (attention_mask is not None and attention_mask.dim() != 2):
            what = ", ".join(others) or ("attention_mask" if input_ids is not None else "inputs_embeds")
            arguments.update(token_type_ids=token_type_ids, position_ids=position_ids, output_hidden_states=all_states)
            given = {name: value for name, value in arguments.items() if value is not None}
            return self._in_floats(what, input_ids=input_ids, attention_mask=attention_mask, return_dict=return_dict, **given)
        if all_states:
            states = self._states(input_ids, attention_mask, token_type_ids, position_ids, all_of_them=True)
            output = self._output(states[-1], hidden_states=states)
        elif torch.compiler.is_compiling() or _jit.is_tracing():
            output = self._output(_encode(self._number, input_ids, attention_mask, token_type_ids, position_ids))
        else:
            output = self._output(*self._states(input_ids, attention_mask, token_type_ids, position_ids))
        return output if return_dict else output.to_tuple()

    def _output(self, states: torch.Tensor, **fields: Any) -> Any:
        if self.pooler is not None:
            if self.pooler_activation is not None:
                # ALBERT's pooler is a linear layer.
                fields["pooler_output"] = self.pooler_activation(self.pooler(states[:, 0]))
            else:
                fields["pooler_output"] = self.pooler(states)
        return self.output_class(last_hidden_state=states, **fields)

    def _states(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        token_type_ids: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        *,
        all_of_them: bool = False,
    ) -> tuple[torch.Tensor, ...]:
        """The last hidden states, or those before the first layer and after each."""
        network = self._opened()
        inputs = _arrays(input_ids, attention_mask, token_type_ids, position_ids)
        reason = _why_in_floats(network, inputs)
        if reason is not None:
            given = {"token_type_ids": token_type_ids, "position_ids": position_ids}
            given = {name: value for name, value in given.items() if value is not None}
            output = self._in_floats(
                reason, input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=all_of_them, return_dict=True, **given
            )
            states: tuple[torch.Tensor, ...] = output.hidden_states if all_of_them else (output.last_hidden_state,)
            return states
        found = network.hidden_states(*inputs) if all_of_them else [network.forward(*inputs, threads=resolve_threads(None))]
        return tuple(torch.from_numpy(states).to(self._dtype) for states in found)

    def _in_floats(self, reason: str, **arguments: Any) -> Any:
        if reason not in self._warned:
            self._warned.add(reason)
            warnings.warn(
                f"{self.model_class.__name__}: fewbit does not compute this natively ({reason}); it is computed in floats with the quantized "
                "weights, which is slow and takes the memory of the float model",
                stacklevel=4,
            )
        return self._float_model()(**arguments)


# Arguments that change nothing where they are False.
_SWITCHES = ("output_attentions", "use_cache")

_Array = NDArray[numpy.int64]
_Arrays = tuple[_Array, _Array | None, _Array | None, _Array | None]


def _arrays(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    token_type_ids: torch.Tensor | None,
    position_ids: torch.Tensor | None,
) -> _Arrays:
    mask = None if attention_mask is None else _array("attention_mask", attention_mask != 0)
    mask, types = (
        numpy.ascontiguousarray(numpy.broadcast_to(array, input_ids.shape)) if array is not None and array.shape == (1, input_ids.shape[-1]) else array
        for array in (mask, None if token_type_ids is None else _array("token_type_ids", token_type_ids))
    )
    positions = None if position_ids is None else _array("position_ids", position_ids)
    return _array("input_ids", input_ids), mask, types, positions


def _array(name: str, tensor: torch.Tensor) -> _Array:
    if tensor.device.type != "cpu":
        raise ValueError(
            f"{name}: expected a tensor on the CPU, found one on {tensor.device}\n"
            f"  hint: fewbit runs on the CPU: `{name}.cpu()`; `dequantize()` gives a model that runs elsewhere"
        )
    if tensor.is_floating_point() or tensor.is_complex():
        raise ValueError(f"{name}: expected integers, found {tensor.dtype}\n  hint: token ids come from the tokenizer, as torch.int64")
    if tensor.dim() == 1 and name == "position_ids":
        tensor = tensor.unsqueeze(0)
    if tensor.dim() != 2:
        raise ValueError(
            f"{name}: expected the shape (sequences, length), found {tuple(tensor.shape)}\n  hint: `{name}.unsqueeze(0)` makes a batch of one sequence"
        )
    array: _Array = tensor.to(torch.int64).contiguous().numpy()
    return array


def _why_in_floats(network: _fewbit.Network, inputs: _Arrays) -> str | None:
    """What of these inputs the executor does not do, if anything."""
    _, mask, _, positions = inputs
    if positions is not None and not network.looks_up_positions:
        return "position_ids of a model that knows distances between tokens"
    if mask is not None and network.knows_distances and mask.shape[1] > 0:
        starts = (mask[:, 1:] > mask[:, :-1]).sum(axis=1) + mask[:, 0]
        if (starts > 1).any():
            return "holes in attention_mask, in a model that knows distances between tokens"
    return None


_SCHEMA = "(int number, Tensor input_ids, Tensor? attention_mask, Tensor? token_type_ids, Tensor? position_ids) -> Tensor"


# What torch.compile sees of an encoder: one operation.
@torch.library.custom_op("fewbit::encode", mutates_args=(), schema=_SCHEMA)
def _encode(
    number: int,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    token_type_ids: torch.Tensor | None,
    position_ids: torch.Tensor | None,
) -> torch.Tensor:
    (states,) = _encoders[number]._states(input_ids, attention_mask, token_type_ids, position_ids)
    return states


@_encode.register_fake
def _(
    number: int,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    token_type_ids: torch.Tensor | None,
    position_ids: torch.Tensor | None,
) -> torch.Tensor:
    encoder = _encoders[number]
    return input_ids.new_empty((*input_ids.shape, encoder._opened().hidden_size), dtype=encoder.dtype)
