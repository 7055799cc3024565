"""The standard directory of a transformers model around a native encoder."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import copy
import json
from typing import Any

import torch
from torch import nn

from fewbit._fewbit import FewbitError
from fewbit.torch import encoder_directory
from fewbit.torch.native_encoder import NativeEncoder


def write(model: nn.Module, directory: str) -> None:
    """Writes ``model``, a transformers model with a head, to ``directory``.

    The encoder's tensors and its ``quantization_config`` are as they would be in a directory of the encoder alone, with the encoder's name before
    their names; those of the head are float.

    Raises:
        FewbitError: No transformers model, no native encoder directly in it, or a head that is not float.
    """
    config: Any = getattr(model, "config", None)
    prefix: Any = getattr(model, "base_model_prefix", None)
    encoder = getattr(model, prefix, None) if isinstance(prefix, str) and prefix else None
    if config is None or not isinstance(encoder, NativeEncoder):
        raise FewbitError(
            f"save_pretrained: expected a transformers model around a native encoder, found {type(model).__name__}\n"
            "  hint: `fewbit.torch.save` writes any model; an encoder inside it has a `save_pretrained` of its own"
        )
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in encoder._all_tensors().items():
        tensors[f"{prefix}.{name}"] = tensor
    for name, module in model.named_modules(remove_duplicate=False):
        if type(module).__module__.startswith("fewbit.") and not _is_in(name, str(prefix)):
            raise FewbitError(
                f"save_pretrained: {name}: expected a float head, found {type(module).__name__}\n"
                "  hint: loaders of standard directories keep heads float: name the encoder alone when you quantize, "
                f"`quantize_dynamic(model, {{{prefix!r}}})`; `fewbit.torch.save` writes the model as it is"
            )
    for name, tensor in model.state_dict().items():
        if not _is_in(name, str(prefix)):
            tensors[name] = tensor
    files = dict(encoder._files)
    written = json.loads(files["config.json"])
    whole = json.loads(copy.deepcopy(config).to_json_string(use_diff=False))
    whole.update(
        architectures=[type(model).__name__],
        quantization_config=_with_head(written.get("quantization_config"), [name for name in _modules(model) if not _is_in(name, str(prefix))]),
    )
    if whole["quantization_config"] is None:
        del whole["quantization_config"]
        whole["dtype"] = written.get("dtype", whole.get("dtype"))
    files["config.json"] = json.dumps(whole, indent=2).encode()
    encoder_directory.write(directory, files, _without_shared(tensors))


def _is_in(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _modules(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def _with_head(quantization: dict[str, Any] | None, head: list[str]) -> dict[str, Any] | None:
    """Keeps the head's layers float for loaders. The patterns of an encoder's layers match any prefix."""
    if quantization is None:
        return None
    for key in ("ignore", "llm_int8_skip_modules"):
        if key in quantization:
            quantization[key] = [*quantization[key], *(name for name in head if name not in quantization[key])]
    return quantization


def _without_shared(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One name for each tensor, as tied weights have in files."""
    seen: set[tuple[int, int]] = set()
    kept: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.numel())
        if tensor.numel() == 0 or place not in seen:
            kept[name] = tensor
        seen.add(place)
    return kept
