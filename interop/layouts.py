"""Layouts whose readers compute in a dtype or with inputs of their own: every weight that fewbit writes is what the reader makes of it.

fewbit's own reading is `convert --to f32`; the reader's is its dequantized weight. They must have the same bits once fewbit's is rounded to the dtype that the
reader dequantizes in. GPTQ and AWQ need gptqmodel and optimum, which requirements.txt does not have: without them these checks say so and pass.
"""

import importlib.util
from dataclasses import dataclass

import bitsandbytes
import torch
import transformers
from safetensors.torch import load_file

import libraries
import weights


@dataclass(kw_only=True)
class Layout:
    name: str
    arguments: list
    # Whether scales of inputs are calibrated, with the texts that are compared.
    is_calibrated: bool = False
    # The dtype that the reader dequantizes in; none: that of the module.
    dequantized_in: torch.dtype = None


WEIGHT_ONLY = ["--method", "weight-only"]
INT4 = [*WEIGHT_ONLY, "--weights", "int4"]
LAYOUTS = [
    *(
        Layout(name=f"{layout}, {name}", arguments=[*INT4, "--layout", layout, *arguments])
        for layout in ("gptq", "gptq_v2", "awq")
        for name, arguments in {
            "groups of 64": ["--group-size", "64"],
            "groups of 32, asymmetric": ["--group-size", "32", "--asymmetric"],
            "whole rows": ["--group-size", "channel"],
        }.items()
    ),
    Layout(name="fp8", arguments=[*WEIGHT_ONLY, "--weights", "fp8"]),
    Layout(name="fp8, dynamic", arguments=["--method", "dynamic", "--weights", "fp8"]),
    Layout(name="fp8, per tensor", arguments=[*WEIGHT_ONLY, "--weights", "fp8", "--weight-scales", "per-tensor"]),
    Layout(name="fp8, static", arguments=["--method", "static", "--weights", "fp8"], is_calibrated=True),
    Layout(name="fp8, static, per tensor", arguments=["--method", "static", "--weights", "fp8", "--weight-scales", "per-tensor"], is_calibrated=True),
    Layout(name="nvfp4", arguments=[*WEIGHT_ONLY, "--weights", "nvfp4"], dequantized_in=torch.bfloat16),
    Layout(name="mxfp4", arguments=[*WEIGHT_ONLY, "--weights", "mxfp4"], dequantized_in=torch.bfloat16),
    Layout(name="int8, groups of 64", arguments=[*WEIGHT_ONLY, "--group-size", "64"]),
    Layout(name="int8, groups of 64, int-quantized", arguments=[*WEIGHT_ONLY, "--group-size", "64", "--layout", "int-quantized"]),
    Layout(name="int8, bitsandbytes", arguments=[*WEIGHT_ONLY, "--layout", "bitsandbytes"]),
]


def load(directory):
    """The model as the library of its layout loads it."""
    config = libraries.config_json(directory)["quantization_config"]
    method, options = config["quant_method"], {}
    if "fp4" in config.get("format", ""):
        # What its weights become, whatever dtype the model has.
        options = {"dtype": torch.bfloat16}
    if method == "gptq":
        # The kernel that keeps the words of the file.
        options = {"quantization_config": transformers.GPTQConfig(bits=4, backend="gptq_torch"), "dtype": torch.float16}
    if method == "awq":
        options = {"quantization_config": transformers.AwqConfig(bits=4, backend="torch_awq"), "dtype": torch.float16}
    return transformers.AutoModel.from_pretrained(directory, output_loading_info=True, **options)


def dequantized(module):
    """The weight as its library dequantizes it; none of a module that it does not."""
    if hasattr(module, "qweight"):
        if "awq" in type(module).__module__:
            from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm

            return dequantize_gemm(qweight=module.qweight, qzeros=module.qzeros, scales=module.scales, bits=4, group_size=module.group_size).T
        return module.dequantize_weight().T
    if isinstance(module, bitsandbytes.nn.Linear8bitLt):
        codes, absmax = module.weight.data, module.weight.SCB if module.weight.SCB is not None else module.state.SCB
        return bitsandbytes.functional.int8_vectorwise_dequant(codes, absmax)
    if getattr(module, "quantization_scheme", None) is not None:
        return module.weight.detach()
    return None


def check(row, fewbit, model, work, layout, lines):
    method = layout.name.split(",")[0]
    if method in ("gptq", "gptq_v2", "awq") and importlib.util.find_spec("gptqmodel") is None:
        row.not_run = "gptqmodel is not installed (pip install gptqmodel==7.7.0 optimum==2.3.0)"
        return row
    out, floats = work / f"layout-{layout.name.replace(', ', '-').replace(' ', '-')}", work / "floats"
    fewbit.quantize(model, out, layout.arguments + (fewbit.calibration(lines) if layout.is_calibrated else []))
    fewbit.run("convert", out, "-o", floats, "--to", "f32", "--force")
    ours = load_file(floats / "model.safetensors")
    loaded, info = load(out)
    loaded.eval()
    row.cells["loaded"] = libraries.config_json(out)["quantization_config"]["quant_method"]
    report = {kind: sorted(map(str, keys)) for kind, keys in info.items() if keys}
    row.cells["keys"] = "as the source" if not report else "DIFFER"
    row.expect(not report, f"loading report {report}")
    sequences = libraries.token_ids(out, lines)
    reference = transformers.AutoModel.from_pretrained(floats, dtype=torch.float32).eval()
    # The forward decompresses compressed-tensors' modules, too.
    theirs, expected = (libraries.embeddings(one, sequences[:8]) for one in (loaded, reference))
    each = torch.nn.functional.cosine_similarity(theirs.double(), expected.double())
    row.cells |= {"min cosine": f"{each.min():.6f}", "mean cosine": f"{each.mean():.6f}"}
    # Inputs of 8 bits, or all of a layer in halves: only names and orders can break this; the weights are compared below.
    row.expect(each.min() > 0.99, f"cosine {each.min():.6f} to the same weights in floats")
    count = 0
    for name, module in loaded.named_modules():
        found = dequantized(module)
        if found is None or name.endswith("embeddings"):
            continue
        own = ours[f"{name}.weight"]
        if method == "int8" and row.cells["loaded"] == "bitsandbytes":
            # The library multiplies twice, fewbit once with a rounded factor: two roundings of 2^-24 apart.
            if ((found - own).abs() > own.abs() * 2**-22).any():
                raise weights.Difference(f"{name}: beyond two roundings")
        else:
            rounded = own.to(layout.dequantized_in or found.dtype).to(found.dtype)
            weights.same_bits(weights.positive_zeros(weights.widened(found)), weights.positive_zeros(weights.widened(rounded)), name)
        count += 1
    row.expect(count == 36 or model.name != "all-MiniLM-L6-v2", f"{count} quantized layers, expected 36")
    row.cells["weights"] = f"{count} equal"
    return row
