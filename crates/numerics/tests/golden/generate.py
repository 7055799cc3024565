"""Golden files of fewbit-numerics, made with the real libraries on a CPU.

    OMP_NUM_THREADS=1 python generate.py

Made with: Python 3.11, torch 2.15.0, bitsandbytes 0.50.2, compressed-tensors 0.20.0, numpy 2.4.6.
The script refuses other versions of the first three libraries.

Arrays are stored as hexadecimal text of their little-endian bytes, so that floats keep every bit. Long inputs are not stored
but named by generator, seed and count: `generated` below and `tests/golden_input/mod.rs` produce the same bits from integers.
"""

import hashlib
import json
import os
import warnings
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"

import bitsandbytes
import bitsandbytes.functional as bnb
import compressed_tensors
import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.utils import calculate_qparams
from torch.ao.quantization.observer import MinMaxObserver

EXPECTED = {"torch": "2.15.0", "bitsandbytes": "0.50.2", "compressed-tensors": "0.20.0"}
FOUND = {
    "torch": torch.__version__.split("+")[0],
    "bitsandbytes": bitsandbytes.__version__,
    "compressed-tensors": compressed_tensors.__version__,
}
assert FOUND == EXPECTED, FOUND

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
HERE = Path(__file__).parent
F32 = np.float32


def mixed(seed, count):
    """Well mixed 32-bit integers."""
    h = (np.arange(count, dtype=np.uint64) * 2654435761 + seed * 2246822519 + 374761393) & 0xFFFFFFFF
    for shift, factor in ((15, 2246822519), (13, 3266489917)):
        h = ((h ^ (h >> shift)) * factor) & 0xFFFFFFFF
    return (h ^ (h >> 16)).astype(np.uint32)


def generated(name, seed, count):
    h = mixed(seed, count)
    if name == "bell":  # sum of four bytes with a fraction below: 24 bits, exact in float32
        total = (h & 255).astype(np.int64) + (h >> 8 & 255) + (h >> 16 & 255) + (h >> 24)
        fraction = (mixed(seed + 1, count) & 8191).astype(np.int64)
        return (((total - 510) << 13) + fraction).astype(F32) * F32(2.0**-24)
    if name == "bell_bf16":  # the same, with the bits of bf16 only
        return (generated("bell", seed, count).view(np.uint32) & 0xFFFF0000).view(F32)
    if name == "positive":
        return (h >> 8).astype(F32) * F32(2.0**-20)
    if name == "denormal":
        return (h & 0x807FFFFF).view(F32)
    if name == "tiny":  # exponents around the least absmax that is divided by, 1e-38
        return (h & 0x80FFFFFF).view(F32)
    if name == "big":  # up to the largest finite number
        exponent = np.where(h & 0x00800000, 0x7F000000, 0x7E800000).astype(np.uint32)
        return ((h & 0x807FFFFF) | exponent).view(F32)
    if name == "zero":
        return np.zeros(count, F32)
    raise ValueError(name)


def text(array):
    return np.ascontiguousarray(array).tobytes().hex()


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def generated_input(name, seed, count):
    return {"generator": name, "seed": seed, "count": count}, generated(name, seed, count)


def stored_input(values):
    values = np.asarray(values, F32)
    return {"bits": text(values)}, values


def write(name, content):
    body = json.dumps({"versions": FOUND, "cases": content}, indent=0, separators=(",", ":"))
    (HERE / name).write_text(body + "\n")


def neighbours(values):
    """Each value with the floats just below and above it."""
    values = np.asarray(values, F32)
    return np.stack([np.nextafter(values, F32(-9)), values, np.nextafter(values, F32(9))], 1).reshape(-1)


def four_bit():
    cases = []
    for kind in ("nf4", "fp4"):
        code = bnb.get_4bit_type(kind, device="cpu").numpy()
        ordered = np.sort(code)
        thresholds = ((ordered[:-1] + ordered[1:]) / F32(2)).astype(F32)
        near_zero = [0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, 1e-9, -1e-9, 0.0026, -0.0026, 0.0027, -0.0027]
        # The first element makes absmax 1, so that the others are compared as they are.
        critical = np.concatenate([[1.0], neighbours(thresholds), neighbours(ordered).clip(-1, 1), near_zero]).astype(F32)
        # In the second block 1/absmax is inexact: what divides and what multiplies by the reciprocal differ.
        thirds = np.concatenate([[3.0], thresholds * F32(3)]).astype(F32)
        inputs = [(block, stored_input(critical[:128].tolist() + [0.5] * (128 - len(critical[:128])))) for block in (32, 128)]
        inputs += [(128, stored_input(critical)), (32, stored_input(np.concatenate([thirds, thirds, thirds])))]
        inputs += [(128, stored_input(np.concatenate([thirds, -thirds])))]
        for block, count in (
            (32, 1), (32, 2), (32, 31), (32, 33), (32, 95), (64, 64), (64, 653), (128, 300), (256, 777),
            (512, 1025), (1024, 2000), (2048, 2049), (4096, 4096), (4096, 5001),
        ):
            inputs.append((block, generated_input("bell", 1000 * block + count, count)))
        for block, count in ((32, 65), (64, 512), (256, 511)):
            for name in ("bell_bf16", "denormal", "tiny", "big", "positive", "zero"):
                inputs.append((block, generated_input(name, 7 * block + count, count)))
        mixed_blocks = np.concatenate([np.zeros(64, F32), generated("bell", 5, 64), np.zeros(37, F32)])
        inputs.append((64, stored_input(mixed_blocks)))
        for block, (description, values) in inputs:
            packed, state = bnb.quantize_4bit(torch.from_numpy(values.copy()), blocksize=block, quant_type=kind)
            dequantized = bnb.dequantize_4bit(packed, state).reshape(-1)
            assert dequantized.dtype == torch.float32 and dequantized.numel() == len(values)
            if kind == "fp4":
                # The table that is stored in files has +0 at code 8; one of the library's two CPU routines gives -0.
                codes = torch.stack([packed.reshape(-1) >> 4, packed.reshape(-1) & 15], 1).reshape(-1)[: len(values)]
                assert (dequantized[codes == 8] == 0).all()
                dequantized[codes == 8] = 0.0
            cases.append({
                "type": kind, "block_size": block, "input": description, "packed": text(packed.numpy()),
                "absmax": text(state.absmax.numpy()), "dequantized_sha256": sha256(dequantized.numpy()),
            })
    write("four_bit.json", cases)


def double_quantization():
    cases = []
    for name, seed, count in (
        ("bell", 1, 1), ("bell", 2, 255), ("bell", 3, 256), ("bell", 4, 257), ("bell", 5, 2000), ("positive", 6, 700),
        ("denormal", 7, 300), ("tiny", 8, 300), ("big", 9, 300), ("zero", 10, 300),
    ):
        description, values = generated_input(name, seed, count)
        values = np.abs(values)
        offset = F32(0) if name == "big" else values.mean(dtype=np.float64).astype(F32)
        codes, state = bnb.quantize_blockwise(torch.from_numpy(values - offset), blocksize=256)
        restored = bnb.dequantize_blockwise(codes, state).numpy() + offset
        cases.append({
            "input": description, "offset": text(offset), "codes": text(codes.numpy()),
            "nested_absmax": text(state.absmax.numpy()), "dequantized_sha256": sha256(restored.astype(F32)),
        })
    # Offset 0 and a 1 at the head of each block: all 65536 steps of the library's code table, through inputs in -1..1 that are
    # not magnitudes.
    steps = (F32(-1) + F32(2) * np.arange(65535, dtype=F32) / F32(65535)).astype(F32).reshape(-1, 255)
    blocks = np.concatenate([np.ones((len(steps), 1), F32), steps], 1).reshape(-1)
    codes, _ = bnb.quantize_blockwise(torch.from_numpy(blocks), blocksize=256)
    cases.append({"input": {"every_step": True}, "codes_sha256": sha256(codes.numpy())})
    write("double_quantization.json", cases)


def affine():
    cases = []
    schemes = {"symmetric": torch.per_tensor_symmetric, "affine": torch.per_tensor_affine}
    ranges = {"int8": (torch.qint8, None), "uint8": (torch.quint8, None), "int4": (torch.qint8, (-8, 7))}
    for scheme, qscheme in schemes.items():
        for range_name, (dtype, custom) in ranges.items():
            limits = {} if custom is None else {"quant_min": custom[0], "quant_max": custom[1]}
            for index, (low, high) in enumerate((
                (-1.0, 3.0), (-0.1, 0.3), (0.5, 3.0), (-3.0, -0.5), (3.0, 3.0), (0.0, 0.0), (-0.0, 0.0), (1e-45, 1e-40),
                (-1e-5, 1e-6), (-1e30, 1e25), (-1e38, 1.5e38), (-0.7071, 0.31831), (-127.5, 127.5), (-1e-3, 250.0), (-0.5, 254.5),
            )):
                observer = MinMaxObserver(dtype=dtype, qscheme=qscheme, **limits)
                observer(torch.tensor([low, high]))
                scale, zero_point = observer.calculate_qparams()
                minimum, maximum = (-8, 7) if custom else (-128, 127) if range_name == "int8" else (0, 255)
                width = max(abs(low), abs(high))
                values = generated("bell", index, 20) * F32(min(2.5 * width, 1e38))
                # Halves of the scale: ties, if the product with the reciprocal is exact.
                halves = (np.arange(-5, 6, dtype=F32) * F32(3) + F32(0.5)) * scale.numpy()[0]
                values = np.concatenate([values, halves, [0.0, -0.0, low, high]]).astype(F32)
                storage = torch.quint8 if range_name == "uint8" else torch.qint8
                quantized = torch.quantize_per_tensor(torch.from_numpy(values), float(scale), int(zero_point), storage)
                codes = quantized.int_repr().numpy().clip(minimum, maximum)
                dequantized = (codes.astype(np.int32) - int(zero_point)).astype(F32) * scale.numpy().astype(F32)
                if not custom:
                    assert (dequantized == quantized.dequantize().numpy()).all()
                cases.append({
                    "scheme": scheme, "range": range_name, "low": text(F32(low)), "high": text(F32(high)),
                    "scale": text(scale.numpy().astype(F32)), "zero_point": int(zero_point), "values": text(values),
                    "codes": text(codes.astype("<i2")), "dequantized_sha256": sha256(dequantized),
                })
    write("affine.json", cases)


def rows():
    cases = []
    columns = 96
    # Weights: scales of compressed-tensors, which has a floor for rows of zeros only; codes of torch, by fewbit's rounding rule.
    names = ("bell", "bell_bf16", "positive", "zero", "bell", "bell", "bell")
    factors = (F32(1), F32(3), F32(0.001), F32(1), F32(1e-5), F32(4e-6), F32(1e-30))
    matrix = np.stack([generated(name, 50 + i, columns) * factors[i] for i, name in enumerate(names)])
    weights = torch.from_numpy(matrix)
    arguments = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="channel")
    scales, zero_points = calculate_qparams(weights.amin(1), weights.amax(1), arguments)
    codes = torch.quantize_per_channel(weights, scales, zero_points.long(), 0, torch.qint8).int_repr()
    cases.append({
        "kind": "weight", "rows": len(names), "columns": columns, "values": text(matrix),
        "scales": text(scales.numpy()), "codes": text(codes.numpy()),
    })
    names = ("bell", "bell_bf16", "positive", "denormal", "tiny", "zero", "bell")
    factors = (F32(1), F32(3), F32(0.001), F32(1), F32(1), F32(1), F32(1e-5))
    matrix = np.stack([generated(name, 50 + i, columns) * factors[i] for i, name in enumerate(names)])
    for kind, qscheme in (("affine", torch.per_tensor_affine), ("symmetric", torch.per_tensor_symmetric)):
        for i, row in enumerate(np.concatenate([matrix, -matrix[2:3], matrix[:1] + F32(0.2)])):
            observer = MinMaxObserver(dtype=torch.quint8, qscheme=qscheme)
            observer(torch.from_numpy(row))
            scale, zero_point = observer.calculate_qparams()
            codes = torch.quantize_per_tensor(torch.from_numpy(row), float(scale), int(zero_point), torch.quint8).int_repr()
            cases.append({
                "kind": kind, "values": text(row), "scale": text(scale.numpy().astype(F32)), "zero_point": int(zero_point),
                "codes": text(codes.numpy()),
            })
    write("rows.json", cases)


def half_precision():
    edges = [
        0.0, -0.0, 1.0, -1.0, 65504.0, 65519.0, 65519.99, 65519.996, 65520.0, -65520.0, 65536.0, 1e30, 2.0**-14, 2.0**-24, 2.0**-25,
        -(2.0**-25), 1.5 * 2.0**-25, 2.0**-26, 3 * 2.0**-25, 5 * 2.0**-25, 6.097555e-05, 1e-45, -1e-45, 3.3895314e38, 3.3961775e38,
        3.3961776e38, 3.4028235e38, -3.4028235e38, 2.0**-133, 2.0**-134, 1.5 * 2.0**-134, 3 * 2.0**-134, 1.1754944e-38,
        float("inf"), float("-inf"), 1.00390625, 1.01171875, 1.00048828125, 1.00146484375, 2049.0, 2051.0,
    ]
    h = mixed(99, 2000)
    anything = h[(h & 0x7F800000) != 0x7F800000].view(F32)
    around_half = ((h & 0x8FFFFFFF) | 0x30000000).astype(np.uint32).view(F32)[:500]
    values = np.concatenate([np.array(edges, F32), anything[:500], around_half]).astype(F32)
    tensor = torch.from_numpy(values)
    half = tensor.half().numpy()
    assert (half.view(np.uint16) == values.astype(np.float16).view(np.uint16)).all()
    brain = tensor.bfloat16().view(torch.uint16).numpy()
    finite, nonzero = np.isfinite(values), values != 0
    back = tensor.bfloat16().float().numpy()
    write("half_precision.json", [{
        "values": text(values), "f16": text(half), "bf16": text(brain),
        "f16_overflowed": int((np.isinf(half) & finite).sum()), "f16_underflowed": int(((half == 0) & nonzero).sum()),
        "bf16_overflowed": int((np.isinf(back) & finite).sum()), "bf16_underflowed": int(((back == 0) & nonzero).sum()),
    }])


def int_packing():
    cases = []
    for bits in (4, 8):
        low = -(2 ** (bits - 1))
        for rows_, columns in ((1, 1), (1, 3), (1, 8), (2, 16), (3, 5), (4, 33), (2, 0)):
            codes = ((mixed(bits + columns, rows_ * columns) >> 7) % 2**bits).astype(np.int64) + low
            codes = codes.astype(np.int8).reshape(rows_, columns)
            words = pack_to_int32(torch.from_numpy(codes), bits).numpy() if columns else np.zeros((rows_, 0), np.int32)
            cases.append({"bits": bits, "rows": rows_, "columns": columns, "codes": text(codes), "words": text(words)})
    write("int_packing.json", cases)


def choose_parameters():
    """Ranges, and what torch makes of them at run time."""
    edges = [0.0, 1e-45, 1e-40, 1e-38, 1e-30, 3e-7, 1e-5, 0.0077, 0.0155, 0.0156, 1.0, 3.0, 127.0, 255.0, 1e10, 1e30, 1.7e38, 3.4e38]
    ranges = [(-a, b) for a in edges for b in edges]
    ranges += [(a, b) for a in edges for b in edges if a <= b] + [(-b, -a) for a in edges for b in edges if a <= b]
    bell = generated("bell", 71, 1600)
    exponents = (mixed(72, 1600) % 24).astype(np.int64) - 20
    wild = (bell * np.exp2(exponents).astype(F32)).astype(F32).reshape(-1, 2)
    ranges += [tuple(sorted(pair)) for pair in wild.tolist()]
    # Halves of the scale below zero: the exact zero point is a tie, and the last bit of the scale decides.
    for steps in (255, 127):
        for k in range(0, steps, 3):
            for scale in (1.0, 0.1, 0.0123, 7e-5, 6.1e-5, 5e-5):
                ranges.append((-(k + 0.5) * scale, (steps - k - 0.5) * scale))
    ranges = np.array(ranges, F32)
    case = {"ranges": text(ranges)}
    for name, reduce_range in (("full", False), ("reduced", True)):
        parameters = [torch._choose_qparams_per_tensor(torch.from_numpy(pair.copy()), reduce_range) for pair in ranges]
        case[f"{name}_scales"] = text(np.array([scale for scale, _ in parameters], F32))
        case[f"{name}_zero_points"] = text(np.array([zero_point for _, zero_point in parameters], np.uint8))
    # The symmetric form is what fused quantization-aware training uses; its widened range is not to leave float32.
    symmetric = ranges[np.abs(ranges).max(1) < 1e38][::2]
    scales, zero_points = [], []
    for pair in symmetric:
        on, scale, zero_point = torch.ones(1, dtype=torch.int64), torch.ones(1), torch.zeros(1, dtype=torch.int32)
        running = torch.tensor(float("inf")), torch.tensor(float("-inf"))
        torch.fused_moving_avg_obs_fake_quant(
            torch.from_numpy(pair.copy()), on, on, *running, scale, zero_point, 1.0, -128, 127, -1, False, True
        )
        scales.append(scale.item())
        zero_points.append(zero_point.item())
    case["symmetric_ranges"] = text(symmetric)
    case["symmetric_scales"] = text(np.array(scales, F32))
    case["symmetric_zero_points"] = text(np.array(zero_points, np.int8))
    write("choose_parameters.json", [case])


def dynamic_linear():
    cases = []
    for index, (rows_, inputs, outputs, has_bias, input_name, weight_name) in enumerate((
        (1, 1, 1, True, "bell", "bell"), (1, 1, 1, False, "bell", "bell"), (3, 4, 2, True, "bell", "bell"),
        (5, 17, 8, True, "bell", "bell"), (2, 31, 5, False, "positive", "bell"), (7, 96, 33, True, "bell", "positive"),
        (16, 64, 24, True, "bell", "bell"), (16, 64, 24, False, "bell", "bell"), (4, 300, 3, True, "positive", "positive"),
        (2, 1000, 2, True, "bell", "bell"), (3, 8, 4, True, "bell", "zero"), (3, 8, 4, False, "bell", "zero"),
        (3, 8, 4, True, "zero", "bell"), (2, 16, 4, True, "denormal", "bell"), (6, 33, 9, True, "bell_bf16", "bell_bf16"),
    )):
        x_from, x = generated_input(input_name, 100 + index, rows_ * inputs)
        weight_from, weight = generated_input(weight_name, 200 + index, inputs * outputs)
        bias_from, bias = generated_input("bell", 300 + index, outputs)
        linear = torch.nn.Linear(inputs, outputs, bias=has_bias)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight.reshape(outputs, inputs)))
            if has_bias:
                linear.bias.copy_(torch.from_numpy(bias))
        results = {}
        for engine in ("x86", "fbgemm"):
            torch.backends.quantized.engine = engine
            quantized = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(linear), {torch.nn.Linear}, torch.qint8)
            results[engine] = quantized(torch.from_numpy(x.reshape(rows_, inputs))).detach().numpy()
            packed = quantized[0]._packed_params._packed_params
            full = torch.ops.quantized.linear_dynamic(torch.from_numpy(x.reshape(rows_, inputs)), packed, reduce_range=False)
        assert (results["x86"].view(np.uint32) == results["fbgemm"].view(np.uint32)).all()
        cases.append({
            "in_features": inputs, "has_bias": has_bias, "input": x_from, "weight": {"input": weight_from}, "bias": {"input": bias_from},
            "weight_scale": text(F32(quantized[0].weight().q_scale())), "weight_codes": text(quantized[0].weight().int_repr().numpy()),
            "reduced": text(results["x86"]), "full": text(full.detach().numpy()),
        })
    write("dynamic_linear.json", cases)


if __name__ == "__main__":
    for generate in (
        four_bit, double_quantization, affine, rows, half_precision, int_packing, choose_parameters, dynamic_linear,
    ):
        generate()
