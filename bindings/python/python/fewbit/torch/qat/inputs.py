"""Fake quantization of the inputs of layers."""

# torch is typed in parts, and what modules are made of is private there.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import torch
from torch import Tensor

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
        super().__init__()
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

    def __init__(self, averaging_constant: float) -> None:
        super().__init__()
        self.averaging_constant = averaging_constant
        self.register_buffer("min_val", torch.tensor(float("inf")))
        self.register_buffer("max_val", torch.tensor(float("-inf")))

    def forward(self, x: Tensor) -> Tensor:
        if self.observes() and x.numel():
            self._observe(x.detach())
        if not self.is_enabled() or not self.has_run:
            # Before the first batch there is no range: the model is a float one.
            return x
        with self.naming("inputs"):
            scale, zero_point = affine_parameters(self.min_val, self.max_val, -128, 127)
            return functions.one_scale(x, scale, zero_point)

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
        scale, zero_point = affine_parameters(self.min_val.cpu(), self.max_val.cpu(), -128, 127)
        return float(scale), int(zero_point)


def input_fake_quantize(scheme: InputScheme) -> InputFakeQuantize | None:
    """The fake quantization of inputs by a scheme; ``None`` where they stay float."""
    if scheme.kind == "float":
        return None
    return TokenFakeQuantize() if scheme.kind == "per-token" else StaticFakeQuantize(scheme.averaging_constant)
