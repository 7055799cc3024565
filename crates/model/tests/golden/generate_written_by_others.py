"""Writes `written_by_others/`: quantized checkpoints as other tools write them, and what those tools make of them.

    python generate_written_by_others.py [case …]

Pinned: Python 3.11, torch 2.15.0, transformers 5.23.0, bitsandbytes 0.50.2, compressed-tensors 0.20.0, safetensors 0.8.0, on a CPU, one
thread. The folders `llm-compressor-*` are written first by `generate_llm_compressor.py` in its own environment (llm-compressor
pins older versions of the others); this script then adds their `expected.safetensors`. README.md beside this file says what the files hold.
"""

import json
import os
import shutil
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import bitsandbytes
import compressed_tensors
import torch
import transformers
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme, QuantizationStatus, apply_quantization_config
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig, BertForSequenceClassification, BertModel, BitsAndBytesConfig

HERE = Path(__file__).resolve().parent / "written_by_others"
SCRATCH = HERE / "scratch"
LENGTHS = (1, 7, 20)

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SMALL = dict(vocab_size=80, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=24)
# 64 x 288 weights have more than 256 blocks of 64, so that double quantization has two blocks of its own.
MANY_BLOCKS = SMALL | dict(hidden_size=64, num_hidden_layers=1, intermediate_size=288)
# 36 x 36 and 36 x 45: no whole number of blocks of 64, and an odd last dimension.
SHORT_BLOCK = SMALL | dict(hidden_size=36, num_hidden_layers=1, num_attention_heads=3, intermediate_size=45)


def float_model(folder, shape, seed, kind=BertModel, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    model = kind(BertConfig(**shape)).eval()
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if "LayerNorm" in name:
            value = 1.0 + 0.3 * noise if name.endswith("weight") else 0.2 * noise
        else:
            value = (0.4 if "embeddings" in name else 0.2) * noise
        parameter.data.copy_(value)
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder)


def input_ids(vocabulary, seed):
    generator = torch.Generator().manual_seed(1000 + seed)
    return [torch.randint(1, vocabulary, (1, length), generator=generator) for length in LENGTHS]


# ---- writers --------------------------------------------------------------------------------------------------------


def write_bitsandbytes(name, seed, quant_type, *, double=False, shape=SMALL, kind=BertModel, dtype=torch.float32, skip=None, eight_bit=False):
    float_model(SCRATCH, shape, seed, kind, dtype)
    if eight_bit:
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=quant_type, bnb_4bit_use_double_quant=double, bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=skip
        )
    model = kind.from_pretrained(SCRATCH, dtype=dtype, quantization_config=config, device_map="cpu")
    model.save_pretrained(HERE / name)


INT8_CHANNEL = dict(num_bits=8, type="int", symmetric=True, strategy="channel", dynamic=False)
INT4_GROUP = dict(num_bits=4, type="int", symmetric=True, strategy="group", group_size=32, dynamic=False)
PER_TOKEN = dict(num_bits=8, type="int", strategy="token", dynamic=True)
STATIC = dict(num_bits=8, type="int", strategy="tensor", dynamic=False)


def write_compressed_tensors(name, seed, weights, activations, *, kind=BertModel, dtype=torch.float32, embeddings=False, ignore=("re:.*pooler.*", "re:.*classifier$")):
    float_model(SCRATCH, SMALL, seed, kind, dtype)
    model = kind.from_pretrained(SCRATCH, dtype=dtype).eval()
    groups = {"group_0": QuantizationScheme(targets=["Linear"], weights=weights, input_activations=activations)}
    if embeddings:
        groups["group_1"] = QuantizationScheme(targets=["re:.*word_embeddings$"], weights=INT8_CHANNEL, format="int-quantized")
    config = QuantizationConfig(config_groups=groups, ignore=list(ignore), quantization_status=QuantizationStatus.INITIALIZED)
    apply_quantization_config(model, config, show_progress=False)
    quantized = [module for module in model.modules() if getattr(module, "quantization_scheme", None) is not None]

    extremes = {}
    if activations is not None and not activations["dynamic"]:
        # Minimum and maximum of each layer's input over the test sequences, seen by the float model.
        def observe(module, inputs):
            low, high = inputs[0].min(), inputs[0].max()
            old = extremes.get(module, (low, high))
            extremes[module] = (torch.minimum(low, old[0]), torch.maximum(high, old[1]))

        hooks = [module.register_forward_pre_hook(observe) for module in quantized if isinstance(module, torch.nn.Linear)]
        for module in quantized:
            module.quantization_enabled = False
        with torch.no_grad():
            for ids in input_ids(SMALL["vocab_size"], seed):
                model(input_ids=ids)
        for hook in hooks:
            hook.remove()
        for module in quantized:
            module.quantization_enabled = True

    for module in quantized:
        scheme = module.quantization_scheme
        weight = module.weight.detach()
        if scheme.weights.strategy == "group":
            weight = weight.unflatten(-1, (-1, scheme.weights.group_size))
            low, high = weight.amin(-1), weight.amax(-1)
        else:
            low, high = weight.amin(-1, keepdim=True), weight.amax(-1, keepdim=True)
        scale, zero_point = calculate_qparams(low, high, scheme.weights)
        module.weight_scale.data.copy_(scale)
        module.weight_zero_point.data.copy_(zero_point)
        if module in extremes:
            scale, zero_point = calculate_qparams(*extremes[module], scheme.input_activations)
            module.input_scale.data.copy_(scale)
            module.input_zero_point.data.copy_(zero_point)
            if scheme.input_activations.symmetric:
                del module.input_zero_point
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(HERE / name)
    compressor.update_config(HERE / name)


# ---- expected -------------------------------------------------------------------------------------------------------


def dequantized(module):
    """The weight as the library itself dequantizes it (compressed-tensors modules are decompressed by the first forward)."""
    if isinstance(module, bitsandbytes.nn.Linear4bit):
        return bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
    if isinstance(module, bitsandbytes.nn.Linear8bitLt):
        codes, absmax = (module.state.CB, module.state.SCB) if module.weight.CB is None else (module.weight.CB, module.weight.SCB)
        return bitsandbytes.functional.int8_vectorwise_dequant(codes, absmax)
    return module.weight.detach()


def write_expected(name, seed, *, runs=True):
    folder = HERE / name
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    model.eval()
    assert not [key for key in info["missing_keys"] if "pooler" not in key] and not info["mismatched_keys"], (name, info)
    unexpected = [key for key in info["unexpected_keys"] if not key.startswith(("cls", "classifier"))]
    assert not unexpected, (name, unexpected)
    sequences = input_ids(model.config.vocab_size, seed)
    tensors = {}
    with torch.no_grad():
        for i, ids in enumerate(sequences):
            tensors[f"sequence.{i}.input_ids"] = ids[0]
            tensors[f"sequence.{i}.library.last_hidden_state"] = model(input_ids=ids).last_hidden_state[0].float()
    # The same weights in a float32 model that quantizes no activation.
    config = BertConfig.from_pretrained(folder)
    del config.quantization_config
    plain = BertModel(config, add_pooling_layer=False).float().eval()
    stored = dict(model.named_parameters())
    for key, parameter in plain.named_parameters():
        module, _, leaf = key.rpartition(".")
        value = dequantized(model.get_submodule(module)) if leaf == "weight" else stored[key]
        parameter.data.copy_(value.float())
    with torch.no_grad():
        for i, ids in enumerate(sequences):
            tensors[f"sequence.{i}.float32.last_hidden_state"] = plain(input_ids=ids).last_hidden_state[0]
    modules = ["encoder.layer.0.attention.self.query", "encoder.layer.0.output.dense"]
    if any("word_embeddings.weight_scale" in key for key in load_file(folder / "model.safetensors")):
        modules.append("embeddings.word_embeddings")
    for module in modules:
        tensors[f"weight.{module}"] = dequantized(model.get_submodule(module))
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, folder / "expected.safetensors")
    worst = min(
        torch.nn.functional.cosine_similarity(tensors[f"sequence.{i}.library.last_hidden_state"].flatten(), tensors[f"sequence.{i}.float32.last_hidden_state"].flatten(), dim=0).item()
        for i in range(len(sequences))
    )
    size = sum(file.stat().st_size for file in folder.iterdir())
    quantization = json.loads((folder / "config.json").read_text())["quantization_config"]
    print(f"{name}: {size // 1000} KB, {quantization['quant_method']} {quantization.get('format', '')}, library against float32 with its weights: cosine {worst:.6f}", flush=True)
    assert size < 190_000


BITSANDBYTES = {
    "bitsandbytes-nf4": dict(seed=1, quant_type="nf4"),
    "bitsandbytes-nf4-double-quant": dict(seed=2, quant_type="nf4", double=True),
    "bitsandbytes-fp4": dict(seed=3, quant_type="fp4"),
    "bitsandbytes-fp4-double-quant": dict(seed=4, quant_type="fp4", double=True),
    "bitsandbytes-nf4-bf16": dict(seed=5, quant_type="nf4", dtype=torch.bfloat16),
    "bitsandbytes-nf4-double-quant-bf16": dict(seed=6, quant_type="nf4", double=True, dtype=torch.bfloat16),
    "bitsandbytes-fp4-fp16": dict(seed=7, quant_type="fp4", dtype=torch.float16),
    "bitsandbytes-nf4-prefix": dict(seed=8, quant_type="nf4", kind=BertForSequenceClassification),
    "bitsandbytes-nf4-skip": dict(seed=9, quant_type="nf4", skip=["pooler", "encoder.layer.1.output.dense"]),
    "bitsandbytes-nf4-double-quant-many-blocks": dict(seed=10, quant_type="nf4", double=True, shape=MANY_BLOCKS),
    "bitsandbytes-nf4-short-block": dict(seed=11, quant_type="nf4", shape=SHORT_BLOCK),
    "bitsandbytes-int8": dict(seed=40, quant_type=None, eight_bit=True),
}
COMPRESSED_TENSORS = {
    "compressed-tensors-w8a8-dynamic": dict(seed=21, weights=INT8_CHANNEL, activations=PER_TOKEN | dict(symmetric=True)),
    "compressed-tensors-w8a8-dynamic-affine": dict(seed=22, weights=INT8_CHANNEL, activations=PER_TOKEN | dict(symmetric=False)),
    "compressed-tensors-w8a8-dynamic-prefix": dict(seed=23, weights=INT8_CHANNEL, activations=PER_TOKEN | dict(symmetric=True), kind=BertForSequenceClassification),
    "compressed-tensors-w8a8-dynamic-bf16": dict(seed=24, weights=INT8_CHANNEL, activations=PER_TOKEN | dict(symmetric=True), dtype=torch.bfloat16),
    "compressed-tensors-w8a8-dynamic-embeddings": dict(seed=25, weights=INT8_CHANNEL, activations=PER_TOKEN | dict(symmetric=False), embeddings=True),
    "compressed-tensors-w8a8-static": dict(seed=26, weights=INT8_CHANNEL, activations=STATIC | dict(symmetric=True)),
    "compressed-tensors-w8a8-static-affine": dict(seed=27, weights=INT8_CHANNEL, activations=STATIC | dict(symmetric=False)),
    "compressed-tensors-w8a16": dict(seed=28, weights=INT8_CHANNEL, activations=None),
    "compressed-tensors-w4a16-group-32": dict(seed=29, weights=INT4_GROUP, activations=None),
    "compressed-tensors-w4a16-group-32-bf16": dict(seed=30, weights=INT4_GROUP, activations=None, dtype=torch.bfloat16),
}

if __name__ == "__main__":
    assert transformers.__version__ == "5.23.0" and bitsandbytes.__version__ == "0.50.2" and compressed_tensors.__version__ == "0.20.0"
    wanted = sys.argv[1:]
    for cases, write in ((BITSANDBYTES, write_bitsandbytes), (COMPRESSED_TENSORS, write_compressed_tensors)):
        for name, options in cases.items():
            if not wanted or name in wanted:
                shutil.rmtree(HERE / name, ignore_errors=True)
                write(name, **options)
                write_expected(name, options["seed"])
    for folder in sorted(HERE.glob("llm-compressor-*")):
        if not wanted or folder.name in wanted:
            write_expected(folder.name, 0)
    shutil.rmtree(SCRATCH, ignore_errors=True)
