"""The native half of the package."""

from collections.abc import Callable

import numpy
from numpy.typing import NDArray

_Progress = Callable[[int, int, str], None] | None

class FewbitError(Exception):
    """What fewbit could not do: which file or tensor, what was expected, what was found, and a hint."""

def version() -> str: ...
def threads_available(threads: int | None = None) -> int: ...

class Encoder:
    @staticmethod
    def open(
        directory: str,
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        max_tokens: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        task: str | None = None,
    ) -> Encoder: ...
    def encode(
        self, texts: list[str], *, threads: int, batch_size: int, progress: _Progress = None
    ) -> tuple[NDArray[numpy.float32], list[int]]: ...
    def forward(
        self,
        input_ids: NDArray[numpy.int64],
        attention_mask: NDArray[numpy.int64] | None = None,
        token_type_ids: NDArray[numpy.int64] | None = None,
        *,
        threads: int,
    ) -> NDArray[numpy.float32]: ...
    @property
    def columns(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...

_Activations = str | tuple[float, int, bool]
_WeightParts = (
    tuple[NDArray[numpy.int8], NDArray[numpy.float32], _Activations]
    | tuple[NDArray[numpy.int16], str]
    | tuple[NDArray[numpy.uint8], NDArray[numpy.float32], str, int, str]
)

class Linear:
    """A linear layer by itself, packed for the kernels of this CPU."""

    def __init__(self, weight: _WeightParts, shape: tuple[int, int], bias: NDArray[numpy.float32] | None = None) -> None: ...
    def forward(self, x: NDArray[numpy.float32], y: NDArray[numpy.float32], threads: int) -> None: ...

class Convolution:
    """A convolution by itself, packed for the kernels of this CPU. Channels are the last axis of everything."""

    def __init__(
        self,
        weight: _WeightParts,
        channels: tuple[int, int],
        groups: int,
        *,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        dilation: tuple[int, int],
        padding: tuple[tuple[int, int], tuple[int, int]],
        bias: NDArray[numpy.float32] | None = None,
    ) -> None: ...
    def forward(self, x: NDArray[numpy.float32], y: NDArray[numpy.float32], threads: int) -> None: ...

def embedding_rows(
    codes: NDArray[numpy.int8], scales: NDArray[numpy.float32], ids: NDArray[numpy.int64], out: NDArray[numpy.float32]
) -> None: ...
def quantize_int8(weight: NDArray[numpy.float32], *, per_tensor: bool) -> tuple[NDArray[numpy.int8], NDArray[numpy.float32]]: ...
def dequantize_int8(codes: NDArray[numpy.int8], scales: NDArray[numpy.float32]) -> NDArray[numpy.float32]: ...
def quantize_four_bit(weight: NDArray[numpy.float32], *, kind: str, block_size: int) -> tuple[NDArray[numpy.uint8], NDArray[numpy.float32]]: ...
def dequantize_four_bit(
    packed: NDArray[numpy.uint8], absmax: NDArray[numpy.float32], *, kind: str, block_size: int, elements: int
) -> NDArray[numpy.float32]: ...
def quantize_absmax(absmax: NDArray[numpy.float32]) -> tuple[NDArray[numpy.uint8], NDArray[numpy.float32], float]: ...
def dequantize_absmax(codes: NDArray[numpy.uint8], nested_absmax: NDArray[numpy.float32], offset: float) -> NDArray[numpy.float32]: ...
