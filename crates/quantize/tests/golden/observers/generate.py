"""Golden files of fewbit's observers, made with torch.ao.quantization on a CPU.

    python generate.py

Made with: Python 3.11, torch 2.15.0, numpy 2.4.6, on x86-64 with AVX2. The script refuses another torch. On a CPU without fused multiply-add
torch.linspace has other last bits, and with it HistogramObserver where ranges grow.

Inputs are not stored: `generated` below and `generated_values.rs` produce the same bits from integers. Floats are stored as hexadecimal text
of their little-endian bytes.
"""

import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import torch
from torch.ao.quantization import get_default_qconfig
from torch.ao.quantization.observer import (
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)

VERSION = torch.__version__.split("+")[0]
assert VERSION == "2.15.0", VERSION
assert torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
warnings.filterwarnings("ignore")
torch.set_num_threads(1)
HERE = Path(__file__).parent
F32 = np.float32
CHANNELS = 6


def mixed(seed, count):
    """Well mixed 32-bit integers."""
    h = (np.arange(count, dtype=np.uint64) * 2654435761 + seed * 2246822519 + 374761393) & 0xFFFFFFFF
    for shift, factor in ((15, 2246822519), (13, 3266489917)):
        h = ((h ^ (h >> shift)) * factor) & 0xFFFFFFFF
    return (h ^ (h >> 16)).astype(np.uint32)


def generated(name, seed, count, factor=1.0, offset=0.0):
    """float32 values; each operation on floats is one rounding."""
    h = mixed(seed, count)
    centred = (h >> 8).astype(np.int64) - 2**23
    if name == "uniform":  # -1 to 1
        values = centred.astype(F32) * F32(2.0**-23)
    elif name == "positive":  # 0 to 1
        values = (h >> 8).astype(F32) * F32(2.0**-24)
    elif name in ("bell", "heavy"):  # a sum of four bytes, and its fifth power
        total = (h & 255).astype(np.int64) + (h >> 8 & 255) + (h >> 16 & 255) + (h >> 24) - 510
        values = total.astype(F32) * F32(2.0**-8)
        if name == "heavy":
            square = values * values
            values = square * square * values
    elif name == "rectified":
        values = np.maximum(generated("bell", seed, count), F32(0))
    elif name == "three":  # -1, 0 and 1
        values = (h % 3).astype(F32) - F32(1)
    elif name == "denormal":
        values = (h & 0x807FFFFF).view(F32)
    elif name == "zero":
        values = np.zeros(count, F32)
    else:
        raise ValueError(name)
    return (values * F32(factor)).astype(F32) + F32(offset)


def text(array):
    return np.ascontiguousarray(array).tobytes().hex()


# (name, [(generator, count, factor, offset) of each update])
STREAMS = [
    ("normal", [("bell", 6000, 1, 0)]),
    ("normal, growing", [("bell", 1200, f, 0) for f in (1, 2, 3.7, 0.5, 3.70001, 8)]),
    ("normal, the same range", [("bell", 1200, 1, 0), ("three", 600, 2.5, 0), ("bell", 600, 0.3, 0), ("bell", 1200, 0.9, 0)]),
    ("normal, moving", [("bell", 1200, 1, o) for o in (0, 0.3, -0.2, 4, -4.1, 1)]),
    ("uniform", [("uniform", 5010, 3, 0)]),
    ("uniform, growing", [("uniform", 1002, f, 0) for f in (0.1, 1, 1.5, 40)]),
    ("heavy tail", [("heavy", 6000, 1, 0)]),
    ("heavy tail, growing", [("heavy", 1500, f, 0.1) for f in (0.1, 0.4, 0.2, 1.3, 9)]),
    ("heavy tail, many updates", [("heavy", 60 + 6 * i, 1 + 0.13 * i, 0) for i in range(40)]),
    ("positive", [("positive", 1200, f, 0) for f in (1, 2, 2.5)]),
    ("positive, far from zero", [("positive", 1200, f, 100) for f in (1, 2, 2.5)]),
    ("negative", [("positive", 1200, -f, 0) for f in (1, 3)]),
    ("rectified", [("rectified", 3000, f, 0) for f in (1, 1.7)]),
    ("constant", [("zero", 120, 1, 3), ("zero", 60, 1, 3)]),
    ("negative constant", [("zero", 120, 1, -0.7)]),
    ("constants", [("zero", 120, 1, o) for o in (3, 5, 3, -1)]),
    ("constant, then normal", [("zero", 120, 1, 0.25), ("zero", 60, 1, 0.25), ("bell", 1200, 1, 0), ("bell", 1200, 2, 0)]),
    ("zero", [("zero", 120, 1, 0), ("zero", 60, 1, 0)]),
    ("zero, then normal", [("zero", 120, 1, 0), ("bell", 1200, 1, 0), ("zero", 600, 1, 0)]),
    ("three values", [("three", 600, 0.3, 0), ("three", 600, 0.7, 0)]),
    ("single values", [("bell", 6, f, 0) for f in (1, 2, 0.1, 5, 5, 7)]),
    ("one outlier", [("bell", 6000, 1, 0), ("zero", 6, 1, 900), ("bell", 6000, 1, 0)]),
    ("one outlier first", [("zero", 6, 1, -300), ("bell", 6000, 1, 0), ("bell", 6000, 1.1, 0)]),
    ("by the least step", [("bell", 1200, 1 + i * 2.0**-23, 0) for i in range(4)]),
    ("many values", [("bell", 120000, 1, 0), ("heavy", 60000, 0.5, 0)]),
    ("small", [("bell", 1200, f, 0) for f in (1e-5, 3e-5)]),
    ("below the least scale", [("bell", 1200, f, 0) for f in (1e-8, 3e-8)]),
    ("tiny", [("bell", 1200, f, 0) for f in (1e-30, 3e-30)]),
    ("denormal", [("denormal", 600, 1, 0)]),
    ("large", [("bell", 1200, f, 0) for f in (1e6, 3e6)]),
    ("huge", [("bell", 1200, f, 0) for f in (1e30, 3e30)]),
    ("mixed magnitudes", [("bell", 1200, 1e-6, 0), ("uniform", 1200, 1, 0), ("heavy", 1200, 100, 0), ("bell", 1200, 1e4, 0)]),
]

# -64..63 and 0..127 for reduced ranges. Symmetric quint8 with a reduced range is refused by torch's min-max observers.
DTYPES = {"qint8": torch.qint8, "quint8": torch.quint8}
CONFIGURATIONS = [
    (dtype, symmetric, reduced)
    for dtype in DTYPES
    for symmetric in (False, True)
    for reduced in (False, True)
    if not (dtype == "quint8" and symmetric and reduced)
]


def tensors(index, updates):
    for number, (name, count, factor, offset) in enumerate(updates):
        yield torch.from_numpy(generated(name, 1000 * index + number, count, factor, offset))


def result(observer, updates):
    for tensor in updates:
        observer(tensor)
    scale, zero_point = observer.calculate_qparams()
    assert scale.dtype == torch.float32
    return text(scale.numpy()), zero_point.tolist()


def stream(index, name, updates):
    per_tensor = {
        "min_max": lambda **o: MinMaxObserver(**o),
        "moving_average_min_max": lambda **o: MovingAverageMinMaxObserver(**o),
        "moving_average_min_max 0.3": lambda **o: MovingAverageMinMaxObserver(averaging_constant=0.3, **o),
        "histogram": lambda **o: HistogramObserver(**o),
    }
    per_channel = {}
    for axis in (0, 1):
        end = ("first", "last")[axis]
        per_channel[f"per_channel_min_max {end}"] = lambda axis=axis, **o: PerChannelMinMaxObserver(ch_axis=axis, **o)
        per_channel[f"moving_average_per_channel_min_max {end}"] = (
            lambda axis=axis, **o: MovingAveragePerChannelMinMaxObserver(ch_axis=axis, **o)
        )
    cases = []
    for dtype, symmetric, reduced in CONFIGURATIONS:
        for observers, schemes in (
            (per_tensor, (torch.per_tensor_affine, torch.per_tensor_symmetric)),
            (per_channel, (torch.per_channel_affine, torch.per_channel_symmetric)),
        ):
            for observer_name, make in observers.items():
                observer = make(dtype=DTYPES[dtype], qscheme=schemes[symmetric], reduce_range=reduced)
                values = tensors(index, updates)
                if observer_name.endswith("first"):
                    values = (tensor.reshape(CHANNELS, -1) for tensor in values)
                if observer_name.endswith("last"):
                    values = (tensor.reshape(-1, CHANNELS) for tensor in values)
                qscheme = str(observer.qscheme).removeprefix("torch.")
                cases.append([observer_name, dtype, qscheme, reduced, *result(observer, values)])
    histogram = HistogramObserver()
    for tensor in tensors(index, updates):
        histogram(tensor)
    clipped = histogram._non_linear_param_search()
    return {
        "name": name, "seed": 1000 * index,
        "updates": [
            {"generator": g, "count": count, "factor": text(F32(factor)), "offset": text(F32(offset))}
            for g, count, factor, offset in updates
        ],
        "histogram": {
            "counts_sha256": hashlib.sha256(histogram.histogram.numpy().tobytes()).hexdigest(),
            "range": text(np.array([histogram.min_val, histogram.max_val], F32)),
            "clipped": text(np.array([float(x) for x in clipped], F32)),
        },
        # observer, dtype, qscheme, reduce_range, scales, zero points
        "cases": cases,
    }


def default_qconfigs():
    def described(observer):
        name = type(observer).__name__
        assert observer.eps.item() == np.finfo(F32).eps and not observer.has_customized_qrange
        assert getattr(observer, "bins", 2048) == 2048 and getattr(observer, "ch_axis", 0) == 0
        return {
            "observer": name, "dtype": str(observer.dtype).removeprefix("torch."), "qscheme": str(observer.qscheme).removeprefix("torch."),
            "reduce_range": observer.reduce_range, "quant_min": observer.quant_min, "quant_max": observer.quant_max,
        }

    backends = {}
    for backend in ("fbgemm", "x86", "qnnpack", "onednn"):
        qconfig = get_default_qconfig(backend)
        backends[backend] = {"activation": described(qconfig.activation()), "weight": described(qconfig.weight())}
    return backends


def write(name, content):
    """One list of numbers and texts a line."""
    body = json.dumps({"torch": VERSION, **content}, separators=(",", ":"))
    (HERE / name).write_text(body.replace("],[\"", "],\n[\"").replace(",{", ",\n{") + "\n")


if __name__ == "__main__":
    write("torch_observers.json", {"streams": [stream(i, *s) for i, s in enumerate(STREAMS)]})
    write("default_qconfigs.json", {"backends": default_qconfigs()})
