"""When fake quantization begins, and when ranges stop moving."""

from __future__ import annotations

from typing import Any

from torch import nn

from fewbit.torch.qat.switches import fake_quantizers


class QATSchedule:
    """Lets a prepared model train in floats at first, and keeps its ranges at the end. It is stepped as a learning rate scheduler is.

    Ranges of static inputs follow what they see from the beginning on, so that they are there when fake quantization begins.

    Args:
        model: What :func:`fewbit.torch.prepare_qat` gave.
        start: The first step, from 0 on, with fake quantization.
        freeze: The first step with ranges and searched scales that stay; ``None``: they never do.

    Attributes:
        last_step: The number of the step that runs next.

    Raises:
        ValueError: The model is not prepared; steps that are not in order.

    >>> import torch
    >>> import fewbit.torch
    >>> model = fewbit.torch.prepare_qat(torch.nn.Sequential(torch.nn.Linear(8, 4)), "dynamic")
    >>> schedule = fewbit.torch.QATSchedule(model, start=1, freeze=2)
    >>> bool(model[0].weight_fake_quant.is_enabled())
    False
    >>> schedule.step()
    >>> bool(model[0].weight_fake_quant.is_enabled())
    True
    """

    def __init__(self, model: nn.Module, start: int = 0, freeze: int | None = None) -> None:
        if start < 0 or (freeze is not None and freeze < start):
            raise ValueError(f"QATSchedule: expected 0 <= start <= freeze, found start={start}, freeze={freeze}")
        self._quantizers = list(fake_quantizers(model))
        self.start = start
        self.freeze = freeze
        self.last_step = 0
        self._apply()

    def step(self, step: int | None = None) -> None:
        """Goes on to the next step, or to the given one: call it after ``optimizer.step()``."""
        self.last_step = self.last_step + 1 if step is None else step
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """The number of the step."""
        return {"last_step": self.last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a state."""
        self.last_step = int(state_dict["last_step"])
        self._apply()

    def _apply(self) -> None:
        enabled = self.last_step >= self.start
        observing = self.freeze is None or self.last_step < self.freeze
        for quantizer in self._quantizers:
            # A flag that says so already is not written: it is read anew where it is.
            if quantizer.is_enabled() != enabled or bool(quantizer.observer_enabled) != observing:
                quantizer.set(enabled=enabled, observing=observing)


def trainer_callback(model: nn.Module, start: int = 0, freeze: int | None = None) -> Any:
    """The same for the Trainer of transformers: ``Trainer(…, callbacks=[fewbit.torch.trainer_callback(model, start=100)])``.

    Steps are the Trainer's own, so that a training that resumes goes on where it was.
    """
    from transformers import TrainerCallback

    base: Any = TrainerCallback
    schedule = QATSchedule(model, start, freeze)

    class QATCallback(base):  # type: ignore[misc]
        """Steps the schedule."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            schedule.step(state.global_step)

    return QATCallback()
