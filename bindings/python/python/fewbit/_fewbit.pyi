"""The native half of the package."""

from collections.abc import Callable

import numpy
from numpy.typing import NDArray

_Progress = Callable[[int, int, str], None] | None

class FewbitError(Exception):
    """What fewbit could not do: which file or tensor, what was expected, what was found, and a hint."""

def version() -> str: ...
def threads_available(threads: int | None = None) -> int: ...

def encoder_model_types() -> list[str]: ...
def convert_checkpoint(source: str, recipe: str, out: str, progress: _Progress = None) -> str: ...
def dequantized_weights(directory: str) -> list[tuple[str, NDArray[numpy.float32]]]: ...
def default_qconfig(backend: str) -> str: ...

class Calibration:
    def __init__(self, qconfig: str, statistics: str | None = None) -> None: ...
    def observe(self, layer: str, values: NDArray[numpy.float32]) -> None: ...
    def decide(self, backend: str) -> str: ...
    def layers(self) -> list[str]: ...
    def statistics(self) -> str: ...

class Network:
    @staticmethod
    def open(directory: str) -> Network: ...
    def forward(
        self,
        input_ids: NDArray[numpy.int64],
        attention_mask: NDArray[numpy.int64] | None = None,
        token_type_ids: NDArray[numpy.int64] | None = None,
        position_ids: NDArray[numpy.int64] | None = None,
        *,
        threads: int,
    ) -> NDArray[numpy.float32]: ...
    def hidden_states(
        self,
        input_ids: NDArray[numpy.int64],
        attention_mask: NDArray[numpy.int64] | None = None,
        token_type_ids: NDArray[numpy.int64] | None = None,
        position_ids: NDArray[numpy.int64] | None = None,
    ) -> list[NDArray[numpy.float32]]: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def looks_up_positions(self) -> bool: ...
    @property
    def knows_distances(self) -> bool: ...
    @property
    def memory_bytes(self) -> int: ...

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
    def max_tokens(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
