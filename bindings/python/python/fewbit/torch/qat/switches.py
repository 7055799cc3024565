"""What fake quantization has in common: flags that are buffers, and when ranges may move."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fewbit._fewbit import FewbitError

# Not typed in torch.
_graph_task: Any = getattr(torch._C, "_current_graph_task_id")  # noqa: B009


#: What to do about numbers that are not finite, by whether they are trained.
_HINTS = {
    True: "the loss was not finite in a step before: a lower learning rate, or clipped gradients",
    False: "what comes before the layer overflows: a weight there, or float16 without a scaled loss",
}


class FakeQuantize(nn.Module):
    """One tensor's fake quantization. Its flags are buffers under torch's names, so that checkpoints of training hold them.

    Args:
        scheme: What the tensor is trained to become, in words: a checkpoint of another scheme is refused.

    Attributes:
        layer: The name of the layer, for errors.
        fake_quant_enabled: 1 where the tensor is fake-quantized.
        observer_enabled: 1 where ranges and scales may move in training.
        steps: Forward passes in training so far.
        trained_for: The words of the scheme in UTF-8: loaders of checkpoints know nothing but tensors.
    """

    fake_quant_enabled: Tensor
    observer_enabled: Tensor
    steps: Tensor
    trained_for: Tensor

    def __init__(self, scheme: str) -> None:
        super().__init__()
        self.layer = ""
        self.register_buffer("fake_quant_enabled", torch.ones(1, dtype=torch.uint8))
        self.register_buffer("observer_enabled", torch.ones(1, dtype=torch.uint8))
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("trained_for", torch.tensor(list(scheme.encode()), dtype=torch.uint8))
        self._read: dict[str, tuple[Tensor, int, int]] = {}

    def _number(self, name: str) -> int:
        """The number in a buffer, read anew where it was written: reading one on another device waits for that device."""
        buffer = self._buffers[name]
        assert buffer is not None
        known = self._read.get(name)
        if known is not None and known[0] is buffer and known[1] == buffer._version:
            return known[2]
        value = int(buffer)
        self._read[name] = (buffer, buffer._version, value)
        return value

    def is_enabled(self) -> bool:
        """Whether the tensor is fake-quantized."""
        return self._number("fake_quant_enabled") != 0

    def moves(self) -> bool:
        """Whether this forward pass is one that ranges and scales follow: in training, and no repetition of an earlier one."""
        return self.training and not is_repetition()

    def observes(self) -> bool:
        """Whether ranges and scales move now."""
        return self.moves() and self._number("observer_enabled") != 0

    def count(self) -> None:
        """Counts a forward pass in training."""
        with torch.no_grad():
            self.steps += 1

    @property
    def has_run(self) -> bool:
        """Whether there was one."""
        return self._number("steps") > 0

    def set(self, *, enabled: bool | None = None, observing: bool | None = None) -> None:
        """Writes the flags that are given."""
        for buffer, value in ((self.fake_quant_enabled, enabled), (self.observer_enabled, observing)):
            if value is not None:
                buffer.fill_(int(value))

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str]
    ) -> None:
        found: Any = state_dict.get(f"{prefix}trained_for")
        if found is not None and not found.cpu().equal(self.trained_for.cpu()):
            expected, other = (bytes(words.tolist()).decode(errors="replace") for words in (self.trained_for, found))
            error_msgs.append(
                f"{self.layer or 'the model'}: expected a state of `{expected}`, found one of `{other}`\n"
                "  hint: a training goes on with the config that it began with"
            )
            return
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_read": {}}

    @contextmanager
    def naming(self, what: str) -> Generator[None, None, None]:
        """Errors about ``what`` name the layer."""
        try:
            yield
        except FewbitError as error:
            text = str(error).removeprefix("weight, ")
            is_trained = what == "weight" or text.startswith("scale")
            raise FewbitError(f"{self.layer or 'the model'}, {what}, {text}\n  hint: {_HINTS[is_trained]}") from error


def is_repetition() -> bool:
    """Whether a backward pass is running: a forward pass in it repeats one that was run before, as gradient checkpointing does."""
    return not torch.compiler.is_compiling() and _graph_task() != -1


def fake_quantizers(model: nn.Module) -> Iterator[FakeQuantize]:
    """Those of a prepared model, each once.

    Raises:
        ValueError: The model is not prepared.
    """
    found = [module for module in model.modules() if isinstance(module, FakeQuantize)]
    if not found:
        raise ValueError(
            f"{type(model).__name__}: expected a model of prepare_qat, found one without fake quantization\n"
            "  hint: prepare_qat returns the prepared model, and changes the given one with inplace=True alone"
        )
    yield from found


def enable_fake_quant(model: nn.Module) -> None:
    """Fake-quantizes weights and inputs of a prepared model, which is how it begins."""
    for module in fake_quantizers(model):
        module.set(enabled=True)


def disable_fake_quant(model: nn.Module) -> None:
    """Lets a prepared model compute in floats. Ranges of static inputs go on following what they see."""
    for module in fake_quantizers(model):
        module.set(enabled=False)


def enable_observer(model: nn.Module) -> None:
    """Lets the ranges of static inputs and searched scales follow what training shows, which is how a prepared model begins."""
    for module in fake_quantizers(model):
        module.set(observing=True)


def disable_observer(model: nn.Module) -> None:
    """Keeps the ranges of static inputs and searched scales as they are."""
    for module in fake_quantizers(model):
        module.set(observing=False)


def freeze(model: nn.Module) -> None:
    """Keeps ranges and searched scales as they are, and fake quantization on: for the last steps of training.

    Scales that are ``learned`` are parameters: they go on being trained.
    """
    for module in fake_quantizers(model):
        module.set(enabled=True, observing=False)
