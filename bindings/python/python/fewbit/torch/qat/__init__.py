"""Quantization-aware training: fake quantization with the arithmetic of fewbit, in any ``nn.Module`` and any loop."""

from fewbit.torch.qat.config import (
    BaseConfig,
    Int4WeightOnlyConfig,
    Int8DynamicActivationInt4WeightConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8StaticActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    NF4WeightOnlyConfig,
    QATConfig,
)
from fewbit.torch.qat.conversion import convert_trained, is_prepared_for_training
from fewbit.torch.qat.preparation import prepare_qat
from fewbit.torch.qat.quantize import quantize_
from fewbit.torch.qat.schedule import QATSchedule, trainer_callback
from fewbit.torch.qat.switches import disable_fake_quant, disable_observer, enable_fake_quant, enable_observer, freeze

__all__ = [
    "BaseConfig",
    "Int4WeightOnlyConfig",
    "Int8DynamicActivationInt4WeightConfig",
    "Int8DynamicActivationInt8WeightConfig",
    "Int8StaticActivationInt8WeightConfig",
    "Int8WeightOnlyConfig",
    "NF4WeightOnlyConfig",
    "QATConfig",
    "QATSchedule",
    "convert_trained",
    "disable_fake_quant",
    "disable_observer",
    "enable_fake_quant",
    "enable_observer",
    "freeze",
    "is_prepared_for_training",
    "prepare_qat",
    "quantize_",
    "trainer_callback",
]
