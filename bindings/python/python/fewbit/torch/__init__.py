"""fewbit for models of PyTorch. Importing it imports torch; ``import fewbit`` does not.

>>> import torch
>>> import fewbit.torch
>>> model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
>>> quantized = fewbit.torch.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
>>> quantized(torch.ones(3, 16)).shape
torch.Size([3, 2])
"""

from fewbit.torch.conversion import convert
from fewbit.torch.dynamic import quantize_dynamic
from fewbit.torch.manager import ModuleQuantizationManager, apply_int4_quantization, benchmark_inference_speed, profile_memory
from fewbit.torch.native_encoder import NativeEncoder
from fewbit.torch.qconfig import QConfig, get_default_qconfig
from fewbit.torch.qat import (
    Int4WeightOnlyConfig,
    Int8DynamicActivationInt4WeightConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8StaticActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    NF4WeightOnlyConfig,
    QATConfig,
    QATSchedule,
    disable_fake_quant,
    disable_observer,
    enable_fake_quant,
    enable_observer,
    freeze,
    prepare_qat,
    quantize_,
    trainer_callback,
)
from fewbit.torch.report import ConversionReport, ModuleReport, report_of
from fewbit.torch.saving import load, save, save_pretrained
from fewbit.torch.state_dict import load_state_dict
from fewbit.torch.static import calibrate, prepare

__all__ = [
    "ConversionReport",
    "Int4WeightOnlyConfig",
    "Int8DynamicActivationInt4WeightConfig",
    "Int8DynamicActivationInt8WeightConfig",
    "Int8StaticActivationInt8WeightConfig",
    "Int8WeightOnlyConfig",
    "ModuleQuantizationManager",
    "ModuleReport",
    "NF4WeightOnlyConfig",
    "NativeEncoder",
    "QATConfig",
    "QATSchedule",
    "QConfig",
    "apply_int4_quantization",
    "benchmark_inference_speed",
    "calibrate",
    "convert",
    "disable_fake_quant",
    "disable_observer",
    "enable_fake_quant",
    "enable_observer",
    "freeze",
    "get_default_qconfig",
    "load",
    "load_state_dict",
    "prepare",
    "prepare_qat",
    "profile_memory",
    "quantize_",
    "quantize_dynamic",
    "report_of",
    "save",
    "save_pretrained",
    "trainer_callback",
]
