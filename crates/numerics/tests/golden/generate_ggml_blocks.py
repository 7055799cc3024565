"""Golden file of ggml's blocks, made with ggml itself and checked with the package gguf.

    python generate_ggml_blocks.py libggml-base.so

Made with: Python 3.11, gguf 0.19, numpy 2.4; ggml of llama-cpp-python 0.3.36, its ggml-quants.c compiled with `-O2 -ffp-contract=off`: with
contraction, which GCC does by default where the machine has fused multiply-adds, few scales of the K-quants have other last bits.

Values (of all types, with the first) and blocks are stored as hexadecimal text of their little-endian bytes. Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 are quantized by gguf, too,
and all types dequantized by it: the script fails where the two differ.
"""

import ctypes
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, quants

NAMES = ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_K", "q5_K", "q6_K"]


def inputs() -> np.ndarray:
    """Sixteen rows of 256: weights of several shapes, and what quantizers trip over."""
    random = np.random.default_rng(7)
    rows = [random.normal(0, 0.05, 256) for _ in range(5)]
    rows.append(random.standard_t(3, 256) * 0.02)
    rows.append(random.uniform(0, 1, 256))
    rows.append(-random.uniform(0.5, 1, 256))
    outliers = random.normal(0, 0.01, 256)
    outliers[[3, 40, 200]] = [4.0, -6.0, 2.5]
    rows.append(outliers)
    rows.append(np.zeros(256))
    # Groups of zeros beside others, constants, one element alone.
    mixed = random.normal(0, 1, 256)
    mixed[:64] = 0
    mixed[96:128] = 0.25
    mixed[128:160] = 0
    mixed[130] = -3
    rows.append(mixed)
    # Ties: multiples of half a step.
    rows.append(np.tile(np.arange(-16, 16) / 2, 8))
    rows.append(np.tile(np.arange(32) * 127 / 62, 8))
    rows.append(np.where(np.arange(256) % 2 == 0, 1.0, -1.0))
    # Scales that fp16 holds as subnormals, and as zero.
    rows.append(random.normal(0, 1e-6, 256))
    rows.append(random.normal(0, 1e-12, 256))
    return np.array(rows, dtype=np.float32)


library = ctypes.CDLL(sys.argv[1])
values = inputs()
golden = []
for name in NAMES:
    kind = GGMLQuantizationType[name.upper()]
    elements, size = quants.GGML_QUANT_SIZES[kind]
    blocks = np.zeros(values.size // elements * size, dtype=np.uint8)
    function = getattr(library, f"quantize_row_{name}_ref")
    function(values.ctypes.data_as(ctypes.c_void_p), blocks.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(values.size))
    by_ggml = np.zeros(values.size, dtype=np.float32)
    function = getattr(library, f"dequantize_row_{name}")
    function(blocks.ctypes.data_as(ctypes.c_void_p), by_ggml.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(values.size))
    dequantized = quants.dequantize(blocks.reshape(1, -1), kind).astype(np.float32).reshape(-1)
    assert np.array_equal(dequantized, by_ggml), name
    if "K" not in name:
        # Where a scale rounds to zero its codes stand for nothing; there gguf clips and ggml wraps.
        again = quants.quantize(values, kind).reshape(-1)
        assert np.array_equal(again, blocks), name
    digest = hashlib.sha256(dequantized.tobytes()).hexdigest()
    golden.append({"type": name.lower(), "values": values.tobytes().hex() if not golden else "", "blocks": blocks.tobytes().hex(), "dequantized_sha256": digest})
(Path(__file__).parent / "ggml_blocks.json").write_text(json.dumps({"cases": golden}, indent=1) + "\n")
