"""Quantization-aware training of a model directory, without PyTorch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fewbit.calibration import Texts
from fewbit.quantize_report import QuantizeReport

_ENDS = {
    "all_steps": "",
    "no_gain": ", when held-out texts showed no gain any more",
    "not_finite": ", when a number was not finite any more",
}


_MEASURES = {
    "kullback_leibler": "mean KL divergence from the float model's probabilities",
    "relative_squared_distance": "mean squared distance to the float model's values, of their variance,",
}


@dataclass(frozen=True)
class LogitAgreement:
    """How near logits are to those of the float model on held-out texts."""

    measure: str
    """What ``distance`` is: ``kullback_leibler``, in nats, or ``relative_squared_distance``, as a share of the variance of values."""
    distance: float
    """The mean over texts, tokens, or starts and ends of answers; 0 where logits say the same."""
    same_answers: float | None
    """The share of them that have the float model's answer; ``None`` where logits are values."""


@dataclass(frozen=True, kw_only=True)
class TrainingReport(QuantizeReport):
    """What a training did, and what was written."""

    steps: int
    """Steps that were done."""
    best_step: int
    """The step whose weights were written, the one that was best on held-out texts; 0: those before training."""
    trained_texts: int
    """Texts that were trained on."""
    held_out_texts: int
    """Texts that were held out."""
    cosine_before: float
    """Mean cosine of the embeddings to those of the float model on held-out texts, before training."""
    cosine_after: float
    """The same of the weights that were written."""
    end: str
    """Why it ended: ``all_steps``; ``no_gain``, when held-out texts showed none any more; ``not_finite``, when loss or gradients were infinite or NaN."""
    training_seconds: float
    """Seconds of training, without those of a run that was interrupted."""
    logits_before: LogitAgreement | None = None
    """How near the logits of a model whose head is trained were before; ``None`` without such a head. The best weights are those that are nearest by it, else by the cosine."""
    logits_after: LogitAgreement | None = None
    """The same of the weights that were written."""

    def _head(self) -> str:
        trained = f"trained on {_count(self.trained_texts, 'text')} for {_count(self.steps, 'step')}{_ENDS[self.end]}, {self.training_seconds:.0f} s"
        return "\n".join([trained, *self._held_out(), super()._head()])

    def _held_out(self) -> list[str]:
        texts = f"{_count(self.held_out_texts, 'text')} held out"
        cosines = f"{self.cosine_before:.5f} before, {self.cosine_after:.5f} after"
        before, after = self.logits_before, self.logits_after
        if before is None or after is None:
            return [f"mean cosine to the float model on {texts}: {cosines} step {self.best_step}"]
        lines = [f"{_MEASURES[after.measure]} on {texts}: {before.distance:.5f} before, {after.distance:.5f} after step {self.best_step}"]
        if before.same_answers is not None and after.same_answers is not None:
            lines.append(f"same answers: {100 * before.same_answers:.1f}% before, {100 * after.same_answers:.1f}% after")
        return [*lines, f"mean cosine of the embeddings: {cosines}"]


def scheme_to_train(weights: str | None, activations: str | None) -> tuple[str, str | None]:
    """The method that training ends in, and the codes of its weights, of what ``qat`` calls both.

    Raises:
        ValueError: There is no such training.
    """
    known = ("int8", "int4", "nf4")
    if weights is not None and weights not in known:
        hint = "\n  hint: small floats are not trained" if weights in ("fp8", "nvfp4", "mxfp4") else ""
        raise ValueError(f"weights: expected {', '.join(known[:-1])} or {known[-1]} with the method `qat`, found {weights!r}{hint}")
    methods = {"dynamic": "dynamic", "per-token": "dynamic", "static": "static", "none": "weight-only"}
    inputs = activations or ("dynamic" if weights in (None, "int8") else "none")
    if inputs not in methods:
        raise ValueError(f"activations: expected dynamic (a scale a token), static or none with the method `qat`, found {inputs!r}")
    if weights != "nf4":
        return methods[inputs], weights
    if inputs != "none":
        raise ValueError(
            "weights='nf4': expected activations='none': products of NF4 weights have float inputs\n  hint: weights='int4' has inputs of 8 bits"
        )
    return "nf4", None


def training_request(
    method: str | None,
    data: Texts | None,
    *,
    steps: int | None,
    learning_rate: float | None,
    batch_size: int | None,
    seed: int | None,
    evaluation_interval: int | None,
    patience: int | None,
) -> dict[str, Any] | None:
    """How a model is trained, as the native half takes it; ``None`` where nothing is.

    Raises:
        ValueError: Options out of range, options of training without any, training without texts.
    """
    own: dict[str, Any] = {
        "steps": steps,
        "learning_rate": learning_rate,
        "evaluation_interval": evaluation_interval,
        "patience": patience,
    }
    if method not in (None, "qat"):
        for name, value in [("data", data), *own.items()]:
            if value is not None:
                hint = "calibration= has the texts of `static` and GPTQ" if name == "data" else 'leave it out, or give method="qat"'
                raise ValueError(f"{name}: goes with the method `qat` alone, found `{method}`\n  hint: {hint}")
        return None
    if data is None:
        for name in ["method qat"] if method == "qat" else [name for name, value in own.items() if value is not None]:
            raise ValueError(
                f"{name}: expected data\n  hint: a few thousand texts like those that the model will see; they need no labels"
            )
        return None
    for name, number in [("steps", steps), ("evaluation_interval", evaluation_interval), ("patience", patience)]:
        if number is not None and number < 1:
            raise ValueError(f"{name}: expected a number, 1 or more, found {number}\n  hint: without it nothing would be trained")
    if learning_rate is not None and not 0 < learning_rate < float("inf"):
        raise ValueError(
            f"learning_rate: expected a number above 0, found {learning_rate}\n  hint: 5e-5 is where to begin; with 0 nothing would be trained"
        )
    return {**own, "batch_size": batch_size, "seed": seed}


def warn_of_training(report: TrainingReport, stacklevel: int) -> None:
    """Says what is wrong with a training that ended early, or that gained nothing."""
    stopped = ""
    if report.end == "not_finite":
        stopped = f"training stopped after {_count(report.steps, 'step')}: loss or gradients were not finite; "
    if report.best_step == 0:
        text = (
            f"{stopped}no step was better on held-out texts than the model before training, which is what was written: give other texts, more steps"
            " or another learning rate"
        )
    elif stopped:
        text = f"{stopped}the weights after step {report.best_step} were written: give a lower learning rate"
    else:
        return
    warnings.warn(text, stacklevel=stacklevel + 1)


@contextmanager
def said_where_it_goes_on(out: str | None) -> Generator[None, None, None]:
    """Says in the traceback of what interrupts a training where that goes on. From Python 3.11 on exceptions can have such notes."""
    try:
        yield
    except BaseException as error:
        kept = f"{out}.training" if out else ""
        add_note: Callable[[str], None] | None = getattr(error, "add_note", None)
        if add_note is not None and not isinstance(error, Exception) and os.path.isdir(kept):
            add_note(f"what was trained is kept in {kept}\n  hint: the same call with resume=True goes on from there")
        raise


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
