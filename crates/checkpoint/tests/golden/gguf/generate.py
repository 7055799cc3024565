"""Writes types.gguf with the package gguf, and expected.safetensors with what it reads of it.

Versions: Python 3.11, gguf 0.19.0, numpy 2.4.6, safetensors 0.8.0.
Run: python generate.py
"""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, quants
from safetensors.numpy import save_file

HERE = Path(__file__).parent
SHAPE = (4, 256)
BLOCKS = ["Q8_0", "Q6_K", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "Q4_K", "Q5_K"]
# Where the fp16 scales of a block are, of the types that the package does not quantize.
SCALES = {"Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}

random = np.random.default_rng(11)
values = random.normal(0, 0.05, SHAPE).astype(np.float32)
writer = GGUFWriter(HERE / "types.gguf", "golden")
writer.add_custom_alignment(64)
for name, kind, value in [
    ("u8", GGUFValueType.UINT8, 200),
    ("i8", GGUFValueType.INT8, -100),
    ("u16", GGUFValueType.UINT16, 60000),
    ("i16", GGUFValueType.INT16, -30000),
    ("u32", GGUFValueType.UINT32, 4000000000),
    ("i32", GGUFValueType.INT32, -2000000000),
    ("f32", GGUFValueType.FLOAT32, 0.1),
    ("bool", GGUFValueType.BOOL, True),
    ("string", GGUFValueType.STRING, "naïve ▁"),
    ("u64", GGUFValueType.UINT64, 2**63 + 1),
    ("i64", GGUFValueType.INT64, -(2**62)),
    ("f64", GGUFValueType.FLOAT64, 0.1),
]:
    writer.add_key_value(f"golden.{name}", value, kind)
writer.add_array("golden.strings", ["a", "", "▁b"])
writer.add_array("golden.integers", [1, -2, 3])
writer.add_array("golden.floats", [0.5, -1.5])
writer.add_array("golden.flags", [True, False])
writer.add_tensor("f32.weight", values)
writer.add_tensor("f16.weight", values.astype(np.float16))
bf16 = quants.quantize(values, GGMLQuantizationType.BF16)
writer.add_tensor("bf16.weight", bf16, raw_dtype=GGMLQuantizationType.BF16)
for name in BLOCKS:
    kind = GGMLQuantizationType[name]
    elements, size = quants.GGML_QUANT_SIZES[kind]
    if name in SCALES:
        blocks = random.integers(0, 256, (values.size // elements, size)).astype(np.uint8)
        for at in SCALES[name]:
            scales = random.normal(0, 1e-3, (len(blocks), 1)).astype(np.float16)
            blocks[:, at : at + 2] = scales.view(np.uint8)
        blocks = blocks.reshape(SHAPE[0], -1)
    else:
        blocks = quants.quantize(values, kind)
    writer.add_tensor(f"{name.lower()}.weight", blocks, raw_dtype=kind)
writer.add_tensor("vector.bias", random.normal(0, 1, 8).astype(np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

expected = {}
for tensor in GGUFReader(HERE / "types.gguf").tensors:
    floats = quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    expected[tensor.name] = np.ascontiguousarray(floats.reshape(tensor.shape[::-1]))
save_file(expected, HERE / "expected.safetensors")
