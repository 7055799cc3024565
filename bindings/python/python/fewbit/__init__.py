"""Quantize transformers to few bits and run them fast on a CPU.

>>> import fewbit
>>> encoder = fewbit.Encoder.open("models/all-MiniLM-L6-v2")
>>> encoder.encode(["A first text.", "A second one."]).shape
(2, 384)
"""

from fewbit._fewbit import FewbitError, isa, version
from fewbit.benchmark import BenchReport, bench
from fewbit.calibration import Calibration, CalibrationReport, calibrate
from fewbit.comparison import CalibrationSweep, Comparison, calibration_sweep, compare
from fewbit.encoder import Encoder, SparseEmbedding
from fewbit.inspection import Inspection, ModelSize, inspect
from fewbit.manager import QuantizationManager, SizeComparisons
from fewbit.predictor import Answer, Classification, Entity, FilledMasks, Predictor, Tagging
from fewbit.quantization import QuantizePlan, QuantizeReport, quantize_model
from fewbit.threads import get_num_threads, set_num_threads

__version__ = version()

__all__ = [
    "Answer",
    "BenchReport",
    "Calibration",
    "CalibrationReport",
    "CalibrationSweep",
    "Classification",
    "Comparison",
    "Encoder",
    "Entity",
    "FewbitError",
    "FilledMasks",
    "Inspection",
    "ModelSize",
    "Predictor",
    "QuantizationManager",
    "QuantizePlan",
    "QuantizeReport",
    "SizeComparisons",
    "SparseEmbedding",
    "Tagging",
    "bench",
    "calibrate",
    "calibration_sweep",
    "compare",
    "get_num_threads",
    "inspect",
    "isa",
    "quantize_model",
    "set_num_threads",
]
