"""``convert``: the quantized model of a prepared one, whichever way it was prepared."""

from __future__ import annotations

from torch import nn

from fewbit.torch import static
from fewbit.torch.qat.conversion import convert_trained, is_prepared_for_training


def convert(model: nn.Module, inplace: bool = False) -> nn.Module:
    """The quantized model of one that :func:`fewbit.torch.prepare` or :func:`fewbit.torch.prepare_qat` prepared.

    Encoders that fewbit runs become native ones, other layers native layers. After :func:`fewbit.torch.prepare` they are static, with the ranges of
    calibration, and embeddings stay float. After :func:`fewbit.torch.prepare_qat` they have the codes and scales that a forward pass with fake quantization uses
    for the weights as they are; adapters of PEFT are merged, and the model inside its wrapper is returned. What became of each module, and why, says
    :func:`fewbit.torch.report_of`.

    Args:
        model: A prepared model that has seen data, on the CPU.
        inplace: Whether the modules of ``model`` itself are exchanged; a model that is one encoder or one layer is returned as a new one.

    Raises:
        ValueError: The model is not prepared, or has seen nothing: no batch of calibration, or no step of training.
        FewbitError: A weight or a scale that is not finite; weights on another device.
    """
    if is_prepared_for_training(model):
        return convert_trained(model, inplace)
    return static.convert(model, inplace)
