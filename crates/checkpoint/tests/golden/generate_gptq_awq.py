"""Writes the golden checkpoints `gptq`, `gptq-v2`, `gptq-8bit` and `awq` beside this script with GPTQModel's own layers.

Each directory holds config.json and model.safetensors as the library packs them, and expected.safetensors with every weight as the library dequantizes it, in
float32 (outputs, inputs) under the module's name.

Versions: torch 2.15.0, gptqmodel 7.7.0, safetensors 0.8.0.
Run: OMP_NUM_THREADS=1 python generate_gptq_awq.py
"""

import json
import shutil
from pathlib import Path

import torch
from gptqmodel.nn_modules.qlinear.torch import TorchLinear
from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear
from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm
from gptqmodel.quantization.config import QuantizeConfig
from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module
from safetensors.torch import save_file

HERE = Path(__file__).parent


def write(name, config, tensors, expected):
    directory = HERE / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"quantization_config": config}, indent=2) + "\n")
    save_file({key: value.contiguous() for key, value in tensors.items()}, directory / "model.safetensors", metadata={"format": "pt"})
    save_file({key: value.contiguous() for key, value in expected.items()}, directory / "expected.safetensors")


def parameters(weight, group_size, bits, symmetric, order):
    """Scales and zero points (outputs, groups) of groups of the columns in `order`, and the group of each column."""
    columns = weight.shape[1]
    group_of_column = torch.empty(columns, dtype=torch.int32)
    group_of_column[order] = torch.arange(columns, dtype=torch.int32) // group_size
    maxq = 2**bits - 1
    scales, zeros = [], []
    for group in range(columns // group_size):
        part = weight[:, group_of_column == group]
        least, greatest = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
        if symmetric:
            greatest = torch.maximum(greatest, -least)
            least = -greatest
        scale = ((greatest - least) / maxq).half().float()
        scales.append(scale)
        zeros.append(torch.full_like(scale, (maxq + 1) // 2) if symmetric else torch.round(-least / scale).clamp(0, maxq))
    return torch.stack(scales, 1), torch.stack(zeros, 1), group_of_column


def linear(seed, out, inside):
    generator = torch.Generator().manual_seed(seed)
    layer = torch.nn.Linear(inside, out, bias=False)
    layer.weight.data = torch.randn((out, inside), generator=generator) * 0.05
    return layer


def gptq(name, version, bits):
    """Groups, whole rows, columns in the order of activations."""
    tensors, expected = {}, {}
    cases = {"groups": (32, True, False), "asymmetric": (32, False, False), "rows": (64, True, False), "activation_order": (16, False, True)}
    for seed, (module, (group_size, symmetric, reordered)) in enumerate(cases.items()):
        layer = linear(seed, 32, 64)
        order = torch.randperm(64, generator=torch.Generator().manual_seed(seed)) if reordered else torch.arange(64)
        scales, zeros, group_of_column = parameters(layer.weight.data, group_size, bits, symmetric, order)
        packed = TorchLinear(
            bits=bits, group_size=group_size, sym=symmetric, desc_act=reordered, in_features=64, out_features=32, bias=False,
            pack_dtype=torch.int32, register_buffers=True,
        )
        packed.pack(layer, scales.clone(), zeros.clone(), group_of_column)
        packed.scales = packed.scales.half()
        packed.post_init()
        dequantized = packed.dequantize_weight()
        # In float32: the products are exact there.
        packed.scales = packed.scales.float()
        expected[module] = packed.dequantize_weight().T.float()
        assert torch.equal(expected[module].half(), dequantized.T), module
        packed.scales = packed.scales.half()
        if version == "gptq":
            convert_gptq_v2_to_v1_format_module(packed, QuantizeConfig(bits=bits, group_size=group_size))
        for part in ("qweight", "qzeros", "scales", "g_idx"):
            tensors[f"{module}.{part}"] = getattr(packed, part).clone()
    tensors["skipped.weight"] = torch.arange(8, dtype=torch.float32).reshape(2, 4)
    write(name, {"quant_method": "gptq", "bits": bits, "group_size": 32, "desc_act": True, "sym": False, "checkpoint_format": version}, tensors, expected)


def awq():
    tensors, expected = {}, {}
    cases = {"groups": (32, False), "symmetric": (16, True), "rows": (64, False)}
    for seed, (module, (group_size, symmetric)) in enumerate(cases.items()):
        layer = linear(seed, 32, 64)
        scales, zeros, _ = parameters(layer.weight.data, group_size, 4, symmetric, torch.arange(64))
        packed = AwqTorchLinear(
            bits=4, group_size=group_size, sym=symmetric, desc_act=False, in_features=64, out_features=32, bias=False, register_buffers=True,
        )
        packed.pack(layer, scales.half(), zeros.half())
        for part in ("qweight", "qzeros", "scales"):
            tensors[f"{module}.{part}"] = getattr(packed, part).clone()
        dequantize = lambda scales: dequantize_gemm(qweight=packed.qweight, qzeros=packed.qzeros, scales=scales, bits=4, group_size=group_size).T
        expected[module] = dequantize(packed.scales.float()).float()
        assert torch.equal(expected[module].half(), dequantize(packed.scales)), module
    tensors["skipped.weight"] = torch.arange(8, dtype=torch.float32).reshape(2, 4)
    write("awq", {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}, tensors, expected)


gptq("gptq", "gptq", 4)
gptq("gptq-v2", "gptq_v2", 4)
gptq("gptq-8bit", "gptq", 8)
awq()
