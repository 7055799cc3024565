"""Quantize transformers to few bits and run them fast on a CPU.

>>> import fewbit
>>> encoder = fewbit.Encoder.open("models/all-MiniLM-L6-v2")  # doctest: +SKIP
>>> encoder.encode(["A first text.", "A second one."]).shape  # doctest: +SKIP
(2, 384)
"""

from fewbit._fewbit import FewbitError, version
from fewbit.encoder import Encoder
from fewbit.threads import get_num_threads, set_num_threads

__version__ = version()

__all__ = [
    "Encoder",
    "FewbitError",
    "get_num_threads",
    "set_num_threads",
]
