"""Single layers of PyTorch that fewbit runs: any ``nn.Module`` keeps its ``forward``, its layers become these."""

from fewbit.torch.layers.convert import METHODS, SUPPORTED, base_type, convert_layer, supported_type
from fewbit.torch.layers.convolution import QuantizedConvolution
from fewbit.torch.layers.embedding import QuantizedEmbedding
from fewbit.torch.layers.linear import QuantizedLinear
from fewbit.torch.layers.quantized_layer import QuantizedLayer, Unsupported

__all__ = [
    "METHODS",
    "SUPPORTED",
    "QuantizedConvolution",
    "QuantizedEmbedding",
    "QuantizedLayer",
    "QuantizedLinear",
    "Unsupported",
    "base_type",
    "convert_layer",
    "supported_type",
]
