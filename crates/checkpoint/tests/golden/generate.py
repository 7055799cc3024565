"""Writes the golden checkpoints beside this script with the real libraries.

Each directory holds config.json and model.safetensors as the library stores them, and expected.safetensors with every weight
dequantized by the library (under the module's name, in the dtype that the library gives).

Versions: torch 2.15.0, bitsandbytes 0.50.2, compressed-tensors 0.20.0, transformers 5.23.0, safetensors 0.8.0.
Run: OMP_NUM_THREADS=1 python generate.py
"""

import json
import shutil
from pathlib import Path

import bitsandbytes.functional as bnb
import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from safetensors.torch import save_file

HERE = Path(__file__).parent


def write(name, config, tensors, expected):
    directory = HERE / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n")
    contiguous = {key: value.contiguous() for key, value in tensors.items()}
    save_file(contiguous, directory / "model.safetensors", metadata={"format": "pt"})
    save_file({key: value.contiguous() for key, value in expected.items()}, directory / "expected.safetensors")


def four_bit():
    """Each case is a module of one checkpoint; sizes that leave a short last block, an odd element, a second nested block."""
    cases = {
        "nf4": ("nf4", torch.float32, (6, 64), 64, False),
        "nf4_short_block": ("nf4", torch.float32, (5, 34), 64, False),
        "nf4_nested": ("nf4", torch.float16, (70, 120), 32, True),
        "nf4_nested_bfloat16": ("nf4", torch.bfloat16, (9, 64), 64, True),
        "fp4": ("fp4", torch.bfloat16, (6, 64), 64, False),
        "fp4_nested": ("fp4", torch.float32, (9, 64), 64, True),
    }
    tensors, expected = {}, {}
    for seed, (module, (kind, dtype, shape, block_size, nested)) in enumerate(cases.items()):
        generator = torch.Generator().manual_seed(seed)
        weight = (torch.randn(shape, generator=generator) * 0.05).to(dtype)
        weight[1] = 0
        packed, state = bnb.quantize_4bit(weight, blocksize=block_size, quant_type=kind, compress_statistics=nested)
        tensors[f"{module}.weight"] = packed
        for key, value in state.as_dict(packed=True).items():
            tensors[f"{module}.weight.{key}"] = value
        expected[module] = bnb.dequantize_4bit(packed, state)
    tensors["skipped.weight"] = torch.arange(8, dtype=torch.float32).reshape(2, 4)
    # The least that transformers accepts.
    write("bitsandbytes-4bit", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, tensors, expected)


def eight_bit():
    generator = torch.Generator().manual_seed(7)
    weight = (torch.randn((5, 24), generator=generator) * 0.05).to(torch.float16)
    weight[2] = 0
    codes, row_absmax, _ = bnb.int8_vectorwise_quant(weight)
    tensors = {
        "dense.weight": codes,
        "dense.SCB": row_absmax,
        "dense.weight_format": torch.tensor(0, dtype=torch.uint8),
    }
    expected = {"dense": bnb.int8_vectorwise_dequant(codes, row_absmax)}
    config = {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False, "llm_int8_threshold": 6.0}
    write("bitsandbytes-8bit", {"quantization_config": config}, tensors, expected)


class Layers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.dynamic = torch.nn.Linear(20, 6, bias=False)
        self.dynamic_affine = torch.nn.Linear(20, 6, bias=False)
        self.static = torch.nn.Linear(20, 6, bias=False)
        self.static_affine = torch.nn.Linear(20, 6, bias=False)
        self.per_tensor = torch.nn.Linear(20, 6, bias=False)
        self.packed8 = torch.nn.Linear(21, 6, bias=False)
        self.packed4 = torch.nn.Linear(64, 6, bias=False)
        self.packed4_bfloat16 = torch.nn.Linear(64, 6, bias=False)
        self.word_embeddings = torch.nn.Embedding(11, 12)
        self.ignored = torch.nn.Linear(4, 2, bias=False)
        # Last, so that the layers above keep their random weights. Eleven rows fill a word of zero points, and part of another.
        self.asymmetric4 = torch.nn.Linear(64, 11, bias=False)
        self.asymmetric4_bytes = torch.nn.Linear(64, 11, bias=False)
        self.dynamic4 = torch.nn.Linear(64, 6, bias=False)
        self.dynamic4_packed = torch.nn.Linear(64, 6, bias=False)


def compressed():
    torch.manual_seed(3)
    model = Layers()
    model.packed4_bfloat16.to(torch.bfloat16)

    def weights(**changes):
        return {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", **changes}

    def inputs(**changes):
        return {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True, **changes}

    group = weights(num_bits=4, strategy="group", group_size=32)
    groups = {
        "dynamic": {"targets": ["Linear"], "weights": weights(), "input_activations": inputs()},
        "dynamic_affine": {"targets": ["dynamic_affine"], "weights": weights(), "input_activations": inputs(symmetric=False)},
        "static": {
            "targets": ["re:stat.*c$"],
            "weights": weights(),
            "input_activations": inputs(strategy="tensor", dynamic=False),
        },
        "static_affine": {
            "targets": ["static_affine"],
            "weights": weights(),
            "input_activations": inputs(strategy="tensor", dynamic=False, symmetric=False),
        },
        "per_tensor": {"targets": ["per_tensor"], "weights": weights(strategy="tensor"), "input_activations": inputs()},
        "packed8": {"targets": ["packed8"], "weights": weights()},
        "packed4": {"targets": ["re:packed4"], "weights": group},
        "asymmetric4": {"targets": ["asymmetric4"], "weights": {**group, "symmetric": False}},
        "asymmetric4_bytes": {
            "targets": ["asymmetric4_bytes"],
            "weights": {**group, "symmetric": False},
            "input_activations": inputs(),
        },
        "dynamic4": {"targets": ["dynamic4"], "weights": group, "input_activations": inputs()},
        "dynamic4_packed": {
            "targets": ["dynamic4_packed"],
            "weights": group,
            "input_activations": inputs(),
            "format": "pack-quantized",
        },
        "embedding": {"targets": ["Embedding"], "weights": weights(), "format": "int-quantized"},
    }
    config = QuantizationConfig(config_groups=groups, ignore=["ignored"], quantization_status="initialized")
    apply_quantization_config(model, config)
    for index, module in enumerate(model.children()):
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is None:
            continue
        weight, args = module.weight.data.float(), scheme.weights
        half_range = (2**args.num_bits - 1) / 2
        if args.strategy == "group":
            groups_of_rows = weight.reshape(weight.shape[0], -1, args.group_size)
            absmax = groups_of_rows.abs().amax(-1)
        elif args.strategy == "tensor":
            absmax = weight.abs().amax().reshape(1)
        else:
            absmax = weight.abs().amax(1, keepdim=True)
        module.weight_scale.data = (absmax / half_range).to(module.weight.dtype)
        if not args.symmetric:
            least, greatest = groups_of_rows.amin(-1).clamp(max=0), groups_of_rows.amax(-1).clamp(min=0)
            module.weight_scale.data = (greatest - least) / (2 * half_range)
            zero_points = torch.round(-8 - least / module.weight_scale.data).clamp(-8, 7)
            module.weight_zero_point.data = zero_points.to(torch.int8)
        if hasattr(module, "input_scale"):
            module.input_scale.data = torch.tensor([0.01 * (index + 1)])
            if not scheme.input_activations.symmetric:
                module.input_zero_point.data = torch.tensor([-5], dtype=torch.int8)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    tensors = {key: value.clone() for key, value in model.state_dict().items()}
    # Written by the library into an existing file.
    directory = HERE / "scratch"
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text("{}")
    compressor.update_config(directory)
    config = json.loads((directory / "config.json").read_text())
    shutil.rmtree(directory)
    compressor.decompress_model(model)
    expected = {name: module.weight.data for name, module in model.named_children() if name != "ignored"}
    write("compressed-tensors", config, tensors, expected)


class FloatLayers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fp8_channel = torch.nn.Linear(20, 6, bias=False)
        self.fp8_tensor = torch.nn.Linear(20, 6, bias=False)
        self.fp8_static = torch.nn.Linear(20, 6, bias=False)
        self.fp8_alone = torch.nn.Linear(20, 6, bias=False)
        self.nvfp4 = torch.nn.Linear(64, 6, bias=False)
        self.mxfp4 = torch.nn.Linear(64, 6, bias=False)
        self.ignored = torch.nn.Linear(4, 2, bias=False)


def compressed_floats():
    """FP8, NVFP4 and MXFP4, with the scales of the library's observers."""
    torch.manual_seed(5)
    model = FloatLayers()
    for index, module in enumerate(model.children()):
        # Rows of zeros, and weights from subnormal FP8 numbers to the largest.
        module.weight.data[1] = 0
        module.weight.data[0, :4] = torch.tensor([1e-7, -3e-4, 0.7, -0.7]) * (index + 1)

    def numbers(bits=8, strategy="channel", **changes):
        return {"num_bits": bits, "type": "float", "symmetric": True, "strategy": strategy, **changes}

    per_token = numbers(strategy="token", dynamic=True)
    nvfp4 = numbers(4, "tensor_group", group_size=16, scale_dtype=torch.float8_e4m3fn, zp_dtype=torch.float8_e4m3fn)
    mxfp4 = numbers(4, "group", group_size=32, scale_dtype=torch.uint8, zp_dtype=torch.uint8)
    groups = {
        "fp8_channel": {"targets": ["fp8_channel"], "weights": numbers(), "input_activations": per_token},
        "fp8_tensor": {"targets": ["fp8_tensor"], "weights": numbers(strategy="tensor"), "input_activations": per_token},
        "fp8_static": {"targets": ["fp8_static"], "weights": numbers(), "input_activations": numbers(strategy="tensor", dynamic=False)},
        "fp8_alone": {"targets": ["fp8_alone"], "weights": numbers()},
        "nvfp4": {"targets": ["nvfp4"], "weights": nvfp4},
        "mxfp4": {"targets": ["mxfp4"], "weights": mxfp4},
    }
    config = QuantizationConfig(config_groups=groups, ignore=["ignored"], quantization_status="initialized")
    apply_quantization_config(model, config)
    originals = {}
    for name, module in model.named_children():
        originals[f"{name}.weight"] = module.weight.data.clone()
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is None:
            continue
        weight, args = module.weight.data, scheme.weights
        if args.strategy in ("group", "tensor_group"):
            parts = weight.reshape(weight.shape[0], -1, args.group_size)
            least, greatest = parts.amin(-1), parts.amax(-1)
        elif args.strategy == "tensor":
            least, greatest = weight.amin().reshape(1), weight.amax().reshape(1)
        else:
            least, greatest = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
        global_scale = None
        if args.strategy == "tensor_group":
            global_scale = generate_gparam(weight.amin().reshape(1), weight.amax().reshape(1))
            module.weight_global_scale.data = global_scale
        scale, _ = calculate_qparams(least, greatest, args, global_scale)
        module.weight_scale.data = scale
        if hasattr(module, "input_scale"):
            module.input_scale.data = torch.tensor([0.02])
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    tensors = {key: value.clone() for key, value in model.state_dict().items()}
    directory = HERE / "scratch"
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text("{}")
    compressor.update_config(directory)
    config = json.loads((directory / "config.json").read_text())
    shutil.rmtree(directory)
    compressor.decompress_model(model)
    expected = {name: module.weight.data for name, module in model.named_children() if name != "ignored"}
    write("compressed-tensors-floats", config, tensors, expected)
    save_file(originals, HERE / "compressed-tensors-floats" / "originals.safetensors")


four_bit()
eight_bit()
compressed()
compressed_floats()
