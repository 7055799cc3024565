"""Quantize transformers to few bits and run them fast on a CPU.

>>> import fewbit
>>> encoder = fewbit.Encoder.open("models/all-MiniLM-L6-v2")
>>> encoder.encode(["A first text.", "A second one."]).shape
(2, 384)
"""

from typing import TYPE_CHECKING, Any

from fewbit._fewbit import FewbitError, isa, version
from fewbit.encoder import Encoder, SparseEmbedding
from fewbit.threads import get_num_threads, set_num_threads

if TYPE_CHECKING:
    from fewbit.benchmark import BenchReport, bench
    from fewbit.calibration import Calibration, CalibrationReport, calibrate
    from fewbit.comparison import CalibrationSweep, Comparison, calibration_sweep, compare
    from fewbit.conversion import ConvertPlan, ConvertReport, convert_model
    from fewbit.gguf import GgufInspection, inspect_gguf
    from fewbit.inspection import Inspection, ModelSize, inspect
    from fewbit.manager import QuantizationManager, SizeComparisons
    from fewbit.predictor import Answer, Classification, Entity, FilledMasks, Predictor, Tagging
    from fewbit.quantization import quantize_model
    from fewbit.quantize_report import QuantizePlan, QuantizeReport
    from fewbit.training import TrainingReport
    from fewbit.weight_sensitivity import SensitivityReport, sensitivity

__version__ = version()

__all__ = [
    "Answer",
    "BenchReport",
    "Calibration",
    "CalibrationReport",
    "CalibrationSweep",
    "Classification",
    "Comparison",
    "ConvertPlan",
    "ConvertReport",
    "Encoder",
    "Entity",
    "FewbitError",
    "FilledMasks",
    "GgufInspection",
    "Inspection",
    "ModelSize",
    "Predictor",
    "QuantizationManager",
    "QuantizePlan",
    "QuantizeReport",
    "SensitivityReport",
    "SizeComparisons",
    "SparseEmbedding",
    "Tagging",
    "TrainingReport",
    "bench",
    "calibrate",
    "calibration_sweep",
    "compare",
    "convert_model",
    "get_num_threads",
    "inspect",
    "inspect_gguf",
    "isa",
    "quantize_model",
    "sensitivity",
    "set_num_threads",
]

# What is imported when it is first asked for: making its dataclasses takes longer than all else of an import.
_MODULES = {
    "benchmark": ["BenchReport", "bench"],
    "calibration": ["Calibration", "CalibrationReport", "calibrate"],
    "comparison": ["CalibrationSweep", "Comparison", "calibration_sweep", "compare"],
    "conversion": ["ConvertPlan", "ConvertReport", "convert_model"],
    "gguf": ["GgufInspection", "inspect_gguf"],
    "inspection": ["Inspection", "ModelSize", "inspect"],
    "manager": ["QuantizationManager", "SizeComparisons"],
    "predictor": ["Answer", "Classification", "Entity", "FilledMasks", "Predictor", "Tagging"],
    "quantization": ["quantize_model"],
    "quantize_report": ["QuantizePlan", "QuantizeReport"],
    "training": ["TrainingReport"],
    "weight_sensitivity": ["SensitivityReport", "sensitivity"],
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for module, names in _MODULES.items():
        if name in names:
            found = getattr(import_module(f"fewbit.{module}"), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module 'fewbit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
