"""Fake quantization of the inputs of layers."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fewbit import _fewbit
from fewbit.torch.qat import functions
from fewbit.torch.qat.config import InputScheme
from fewbit.torch.qat.formulas import affine_parameters
from fewbit.torch.qat.switches import FakeQuantize


class InputFakeQuantize(FakeQuantize):
    """What codes of inputs stand for, in their place."""

    #: Whether each row (the last axis) has a scale of its own.
    is_by_row: bool

    def forward(self, x: Tensor) -> Tensor:
        """The values of the codes, with the dtype of ``x``; the inputs themselves while fake quantization is off.

        Raises:
            FewbitError: On the CPU, an input that is not finite.
        """
        raise NotImplementedError


class TokenFakeQuantize(InputFakeQuantize):
    """Each row with its own range: there is nothing to observe."""

    is_by_row = True

    def __init__(self, bits: int = 8) -> None:
        super().__init__(str(InputScheme("per-token")))
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_enabled():
            return x
        with self.naming("inputs"):
            return functions.token_rows(x, bits=self.bits)


class StaticFakeQuantize(InputFakeQuantize):
    """One range for all: moving averages of the least and the greatest value of each batch that training has seen.

    Attributes:
        min_val: The average of the least values; infinity before the first batch.
        max_val: That of the greatest; minus infinity.
        averaging_constant: What a batch counts.
    """

    is_by_row = False
    min_val: Tensor
    max_val: Tensor

    def __init__(self, scheme: InputScheme) -> None:
        super().__init__(str(scheme))
        self.averaging_constant = scheme.averaging_constant
        self.register_buffer("min_val", torch.tensor(float("inf")))
        self.register_buffer("max_val", torch.tensor(float("-inf")))

    def forward(self, x: Tensor) -> Tensor:
        if self.observes() and x.numel():
            self._observe(x.detach())
        if not self.is_enabled() or not self.has_run:
            # Before the first batch there is no range: the model is a float one.
            return x
        with self.naming("inputs"):
            return self._values(x)

    def _values(self, x: Tensor) -> Tensor:
        return functions.one_scale(x, *self._of_range())

    def _of_range(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point of signed codes, by the range."""
        return affine_parameters(self.min_val, self.max_val, -128, 127)

    def _of_codes(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point that inputs are quantized with."""
        return self._of_range()

    def _observe(self, x: Tensor) -> None:
        least, greatest = (value.to(torch.float32) for value in torch.aminmax(x))
        with torch.no_grad():
            for average, value in ((self.min_val, least), (self.max_val, greatest)):
                followed = torch.where(torch.isinf(average), value, average + self.averaging_constant * (value - average))
                # What is not finite is an error where it is used, and never a range.
                average.copy_(torch.where(torch.isfinite(value), followed, average))
        self.count()

    def parameters_of_codes(self) -> tuple[float, int]:
        """Scale and zero point of signed codes, as layers and files have them.

        Raises:
            ValueError: No batch was seen.
        """
        if not self.has_run or not bool(torch.isfinite(self.min_val) & torch.isfinite(self.max_val)):
            raise ValueError(
                f"{self.layer or 'the model'}: expected a range of inputs, found none\n"
                "  hint: run training steps with observers on, or leave the layer out: prepare_qat(model, config, skip=[…])"
            )
        with self.naming("inputs"):
            scale, zero_point = self._of_codes()
        return float(scale), int(zero_point)


class LearnedStaticFakeQuantize(StaticFakeQuantize):
    """One range for all, whose scale and zero point are parameters (LSQ+, arXiv:2004.09576). They follow the averages at first.

    Attributes:
        scale: The scale, float32; its sign means nothing.
        zero_point: What is rounded to the zero point, float32.
        observed_steps: Forward passes in training after which both are trained.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, scheme: InputScheme) -> None:
        super().__init__(scheme)
        self.observed_steps = scheme.observed_steps
        self.scale = nn.Parameter(torch.ones(()))
        self.zero_point = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.moves() and self._number("steps") == self.observed_steps:
            # Where several processes train, the averages are those of all of them when a forward pass begins, and not when it ends.
            with torch.no_grad():
                for parameter, value in zip((self.scale, self.zero_point), self._of_range(), strict=True):
                    parameter.copy_(value)
            self.count()
        return super().forward(x)

    def observes(self) -> bool:
        return super().observes() and self._follows_range()

    def _follows_range(self) -> bool:
        return self._number("steps") <= self.observed_steps

    def _of_codes(self) -> tuple[Tensor, Tensor]:
        if self._follows_range():
            return self._of_range()
        scale, zero_point = self.scale.detach().abs().float(), self.zero_point.detach().float()
        # Elsewhere a look at it would wait for the device, and NaN stays NaN.
        if functions.is_native(scale) and not bool(scale.isfinite() & zero_point.isfinite() & (scale >= torch.finfo(torch.float32).tiny)):
            raise _fewbit.FewbitError(f"scale: expected a normal number other than 0 and a finite zero point, found {float(scale)} and {float(zero_point)}")
        return scale, zero_point.round().clamp(-128, 127)

    def _values(self, x: Tensor) -> Tensor:
        scale, zero_point = self._of_codes()
        # While both follow the range their gradient is 0, and not none: several processes wait for the gradients of all parameters.
        factor = 0.0 if self._follows_range() else 1.0 / math.sqrt(max(x.numel(), 1) * 127)
        return functions.learned_scale(x, self.scale, self.zero_point, scale, zero_point, factor=factor)


def input_fake_quantize(scheme: InputScheme) -> InputFakeQuantize | None:
    """The fake quantization of inputs by a scheme; ``None`` where they stay float."""
    if scheme.kind == "float":
        return None
    if scheme.kind == "per-token":
        return TokenFakeQuantize()
    return LearnedStaticFakeQuantize(scheme) if scheme.scales == "learned" else StaticFakeQuantize(scheme)
