"""Converted models in files."""

from __future__ import annotations

import os
import pickle
from functools import partial
from typing import Any

import torch
from torch import nn

from fewbit._fewbit import FewbitError
from fewbit.torch import standard_directory
from fewbit.torch.native_encoder import NativeEncoder


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes a converted model, with all that is in it, to a file that :func:`load` reads.

    The file is a pickle, as ``torch.save(model)`` writes it: of the model's own classes it holds the names, so that they must be importable where
    it is read. What other programs read is written by :func:`save_pretrained`, or is the ``state_dict``, which holds tensors only.
    """
    torch.save(model, path)


def load(path: str | os.PathLike[str]) -> nn.Module:
    """The model that :func:`save` wrote. A pickle can run any code: read none that others have made.

    Raises:
        FewbitError: The file is missing, cut short, or holds something else.
    """
    try:
        model: Any = torch.load(path, map_location="cpu", weights_only=False)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, AttributeError, ImportError) as error:
        raise FewbitError(
            f"{os.fspath(path)}: expected a model that fewbit.torch.save wrote, found a file that cannot be read: {error}\n"
            "  hint: the file may be cut short; the classes of the model must be importable"
        ) from error
    if not isinstance(model, nn.Module):
        raise FewbitError(
            f"{os.fspath(path)}: expected a model that fewbit.torch.save wrote, found {type(model).__name__}\n"
            "  hint: a state_dict goes into a model that was converted in the same way: `model.load_state_dict(torch.load(path, weights_only=True))`"
        )
    return model


def expose_save_pretrained(model: nn.Module) -> None:
    """Makes ``model.save_pretrained(directory)`` of a transformers model around a native encoder :func:`save_pretrained`.

    What the class has would write codes without saying how they are to be read.
    """
    is_around = any(isinstance(module, NativeEncoder) for module in model.modules()) and not isinstance(model, NativeEncoder)
    if is_around and callable(getattr(type(model), "save_pretrained", None)):
        model.__dict__["save_pretrained"] = partial(save_pretrained, model)


def save_pretrained(model: nn.Module, directory: str | os.PathLike[str]) -> None:
    """Writes a converted transformers model as a standard directory: what transformers, vLLM, ``fewbit`` and :func:`fewbit.Encoder.open` read.

    Args:
        model: A native encoder, or a transformers model around one whose head is float.
        directory: Made where it does not exist.

    Raises:
        FewbitError: A model that no standard directory describes.
    """
    if isinstance(model, NativeEncoder):
        model.save_pretrained(directory)
    else:
        standard_directory.write(model, os.fspath(directory))
