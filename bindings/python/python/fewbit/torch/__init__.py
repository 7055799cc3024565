"""fewbit for models of PyTorch. Importing it imports torch; ``import fewbit`` does not.

>>> import torch
>>> import fewbit.torch
>>> model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
>>> quantized = fewbit.torch.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
>>> quantized(torch.ones(3, 16)).shape
torch.Size([3, 2])
"""

from fewbit.torch.dynamic import quantize_dynamic
from fewbit.torch.report import ConversionReport, ModuleReport, report_of
from fewbit.torch.state_dict import load_state_dict

__all__ = [
    "ConversionReport",
    "ModuleReport",
    "load_state_dict",
    "quantize_dynamic",
    "report_of",
]
