"""What dataloaders give: dicts, tuples, tensors or texts, as arguments of a model."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import nn

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def batches(
    model: nn.Module,
    dataloader: Iterable[Any],
    *,
    device: str | torch.device = "cpu",
    tokenizer: Any = None,
    num_batches: int | None = None,
    use_student_input_ids: bool = False,
) -> Iterator[Arguments]:
    """Arguments of ``model`` for each batch, on ``device``.

    Args:
        model: What the arguments are for: of a dict it gets those keys that its ``forward`` takes.
        dataloader: Dicts, tuples or lists of tensors, tensors, or texts.
        device: Where the tensors go.
        tokenizer: Makes tensors of texts, as tokenizers of transformers do.
        num_batches: No more than so many.
        use_student_input_ids: Whether ``student_input_ids`` and ``student_attention_mask`` stand for the ids and the mask, where a batch has them.

    Raises:
        ValueError: A dict without a key that the model takes, texts without a tokenizer, a dataloader that gives nothing.
        TypeError: A batch of another type.
    """
    if num_batches is not None and num_batches < 1:
        raise ValueError(f"num_batches: expected at least 1, found {num_batches}")
    taken = _names_of(model)
    number = 0
    for number, batch in enumerate(islice(dataloader, num_batches), start=1):
        yield _arguments(batch, number - 1, taken, torch.device(device), tokenizer, use_student_input_ids)
    if number == 0:
        raise ValueError("dataloader: expected at least one batch, found none\n  hint: an iterator that was read to its end gives nothing again")


def samples_of(arguments: Arguments) -> int:
    """How many samples a batch has."""
    positional, named = arguments
    tensor = next((value for value in [*positional, *named.values()] if isinstance(value, torch.Tensor) and value.dim() > 0), None)
    return 1 if tensor is None else tensor.shape[0]


def _names_of(model: nn.Module) -> set[str] | None:
    """The names that ``forward`` takes; ``None``: any."""
    parameters = inspect.signature(model.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        names = {parameter.name for parameter in parameters}
        # A model of transformers names what it takes, and passes the rest on.
        return names if "input_ids" in names else None
    return {parameter.name for parameter in parameters}


def _arguments(batch: Any, number: int, taken: set[str] | None, device: torch.device, tokenizer: Any, student: bool) -> Arguments:
    if isinstance(batch, str) or (isinstance(batch, (list, tuple)) and batch and all(isinstance(text, str) for text in batch)):
        if tokenizer is None:
            raise ValueError(
                f"batch {number}: expected token ids, found texts\n  hint: `tokenizer=` makes ids of texts: the one that the model was trained with"
            )
        texts = [batch] if isinstance(batch, str) else list(batch)
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    if isinstance(batch, Mapping):
        return (), _named(batch, number, taken, device, student)
    if isinstance(batch, torch.Tensor):
        return (batch.to(device),), {}
    if isinstance(batch, (list, tuple)) and all(isinstance(value, torch.Tensor) for value in batch):
        return tuple(value.to(device) for value in batch), {}
    raise TypeError(
        f"batch {number}: expected a dict, a tuple of tensors, a tensor or texts, found {type(batch).__name__}\n"
        "  hint: a dict with the names that the model's forward takes"
    )


def _named(batch: Mapping[str, Any], number: int, taken: set[str] | None, device: torch.device, student: bool) -> dict[str, Any]:
    values = {name: value for name, value in batch.items() if not name.startswith("student_")}
    if student and "student_input_ids" in batch:
        values["input_ids"] = batch["student_input_ids"]
        values.pop("token_type_ids", None)
        values.pop("attention_mask", None)
        for name in ("attention_mask", "token_type_ids"):
            if f"student_{name}" in batch:
                values[name] = batch[f"student_{name}"]
    # Labels are for a loss.
    values = {name: value for name, value in values.items() if name != "labels" and (taken is None or name in taken)}
    found = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in values.items()}
    if not found or ("input_ids" in (taken or ()) and not {"input_ids", "inputs_embeds"} & set(found)):
        expected = "keys of the model's inputs" if taken is None else f"keys among {', '.join(sorted(taken))}"
        raise ValueError(
            f"batch {number}: expected {expected}, found {', '.join(map(str, batch)) or 'none'}\n"
            "  hint: a batch has the names that the model's forward takes, `input_ids` above all"
        )
    return found
