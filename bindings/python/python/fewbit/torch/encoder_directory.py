"""A transformers encoder as a model directory, and back."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import copy
import inspect
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fewbit import _fewbit
from fewbit.threads import resolve_threads
from fewbit.torch.layers.stored_weight import Int4Weight, Int8Weight, StoredWeight

# Bounds what is held beside the model while it is written.
_SHARD_BYTES = 64 * 1024 * 1024
_WEIGHTS = ".safetensors"
_INDEX = "model.safetensors.index.json"


def temporary_directory() -> tempfile.TemporaryDirectory[str]:
    """A directory for a model that is removed with the object.

    What was opened from it goes on without it: files that are mapped stay until nobody has them any more.
    """
    return tempfile.TemporaryDirectory(prefix="fewbit-", ignore_cleanup_errors=True)


def write_float(encoder: Any, directory: str) -> None:
    """Writes a float transformers model: its configuration, and its tensors under the names of its state_dict.

    ``save_pretrained`` would write the same tensors, but it notes the model's class in a configuration that a model around the encoder
    may share, and turns the names of some families back into those of older files.
    """
    config = copy.deepcopy(encoder.config)
    config.architectures = [type(encoder).__name__]
    config.save_pretrained(directory)
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, tensor in encoder.state_dict().items():
        tensor = tensor.detach()
        if shards[-1] and size + tensor.nbytes > _SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensor.contiguous()
        size += tensor.nbytes
    if len(shards) == 1:
        save_file(shards[0], os.path.join(directory, "model" + _WEIGHTS), metadata={"format": "pt"})
        return
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}{_WEIGHTS}"
        save_file(shard, os.path.join(directory, file), metadata={"format": "pt"})
        index.update(dict.fromkeys(shard, file))
    total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    Path(directory, _INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": index}), encoding="utf-8")


def convert(source: str, recipe: dict[str, Any], out: str, codes: Mapping[str, StoredWeight] | None = None) -> None:
    """Writes what ``recipe`` (the keys of ``recipe.toml``) makes of the directory ``source`` to ``out``, with these ``codes`` of modules."""
    if codes is not None:
        given = [(name, parts) for name, stored in codes.items() if (parts := _parts(stored)) is not None]
        _fewbit.convert_with_codes(source, out, json.dumps({"version": 1, **recipe}), given, threads=resolve_threads(None))
        return
    _fewbit.QuantizationManager(source, False).apply(json.dumps({"version": 1, **recipe}), out, threads=resolve_threads(None))


def _parts(stored: StoredWeight) -> Any:
    """Codes, scales, zero points and bits; ``None`` of blocks, whose codes follow from the weight alone."""
    if isinstance(stored, Int8Weight):
        return stored.codes.numpy(), stored.scales.reshape(-1, 1).numpy(), None, 8
    if isinstance(stored, Int4Weight):
        points = None if stored.zero_points is None else stored.zero_points.contiguous().numpy()
        return stored.codes.contiguous().numpy(), stored.scales.contiguous().numpy(), points, 4
    return None


def read_tensors(directory: str) -> dict[str, torch.Tensor]:
    """The tensors of a directory, mapped rather than read."""
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(Path(directory).glob("*" + _WEIGHTS)):
        tensors.update(load_file(file))
    return tensors


def read_other_files(directory: str) -> dict[str, bytes]:
    """The contents of the files that hold no tensors, by their names."""
    files = (file for file in sorted(Path(directory).iterdir()) if file.is_file() and file.suffix != _WEIGHTS and file.name != _INDEX)
    return {file.name: file.read_bytes() for file in files}


def write(directory: str, files: dict[str, bytes], tensors: dict[str, torch.Tensor]) -> None:
    """Writes what :func:`read_other_files` and :func:`read_tensors` gave."""
    os.makedirs(directory, exist_ok=True)
    for name, content in files.items():
        Path(directory, name).write_bytes(content)
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, os.path.join(directory, "model" + _WEIGHTS), metadata={"format": "pt"})


def new_model(model_class: type[nn.Module], config: Any, *, has_pooler: bool) -> nn.Module:
    """A transformers model with weights that are drawn, which leaves torch's generator as it was.

    Whether it has a pooler is an argument of many classes, which models for tokens and for masked words set: the configuration does not tell.
    """
    options: dict[str, Any] = {} if has_pooler or "add_pooling_layer" not in inspect.signature(model_class).parameters else {"add_pooling_layer": False}
    with torch.random.fork_rng(devices=[]):
        return model_class(config, **options)


def float_model(model_class: type[nn.Module], config: Any, directory: str, tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> nn.Module:
    """The transformers model of a directory with float weights: of quantized ones what their codes stand for."""
    weights = {f"{name}.weight": torch.from_numpy(weight) for name, weight in _fewbit.dequantized_weights(directory)}
    # The weights that the constructor draws are all replaced.
    model = new_model(model_class, copy.deepcopy(config), has_pooler=any(name.startswith("pooler.") for name in tensors))
    state = {name: weights.get(name, tensors.get(name)) for name in model.state_dict()}
    model.load_state_dict({name: tensor for name, tensor in state.items() if tensor is not None})
    return model.to(dtype).eval()
