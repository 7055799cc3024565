"""Writes the folders `written_by_others/llm-compressor-*`, as llm-compressor writes them.

    python generate_llm_compressor.py     in its own environment, then generate_written_by_others.py in the other

Pinned: Python 3.11, llmcompressor 0.14.0.1, compressed-tensors 0.19.0, torch 2.14.0, transformers 5.17.0, safetensors 0.8.0, on a CPU,
one thread.
"""

import os
import shutil
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import llmcompressor
import torch
import transformers
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from transformers import BertConfig, BertModel

HERE = Path(__file__).resolve().parent / "written_by_others"
SCRATCH = HERE / "scratch"
LENGTHS = (1, 7, 20)
SMALL = dict(vocab_size=80, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=24)
GROUP_32 = {
    "group_0": dict(targets=["Linear"], weights=dict(num_bits=4, type="int", symmetric=True, strategy="group", group_size=32))
}
# The preset W8A16 has groups of 128, more than these models are wide.
CHANNEL = {"group_0": dict(targets=["Linear"], weights=dict(num_bits=8, type="int", symmetric=True, strategy="channel"))}

torch.set_num_threads(1)


def float_model(seed):
    generator = torch.Generator().manual_seed(seed)
    model = BertModel(BertConfig(**SMALL)).eval()
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if "LayerNorm" in name:
            value = 1.0 + 0.3 * noise if name.endswith("weight") else 0.2 * noise
        else:
            value = (0.4 if "embeddings" in name else 0.2) * noise
        parameter.data.copy_(value)
    model.save_pretrained(SCRATCH)
    # oneshot wants to know where the model came from.
    return BertModel.from_pretrained(SCRATCH).eval()


def write(name, seed, calibrate=False, **modifier):
    model = float_model(seed)
    folder = HERE / f"llm-compressor-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    recipe = QuantizationModifier(ignore=["re:.*pooler.*"], **modifier)
    data = {}
    if calibrate:
        generator = torch.Generator().manual_seed(1000)
        rows = [torch.randint(1, SMALL["vocab_size"], (length,), generator=generator).tolist() for length in LENGTHS]
        data = dict(
            dataset=Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}),
            num_calibration_samples=len(rows), max_seq_length=24, pipeline="basic", shuffle_calibration_samples=False,
        )
    oneshot(model=model, recipe=recipe, **data)
    model.save_pretrained(folder, save_compressed=True)
    (folder / "recipe.yaml").unlink(missing_ok=True)
    print(folder.name, sorted(file.name for file in folder.iterdir()))


if __name__ == "__main__":
    assert llmcompressor.__version__.startswith("0.14.0") and transformers.__version__ == "5.17.0"
    write("w8a8-dynamic", 51, targets="Linear", scheme="W8A8")
    write("w8a16", 52, config_groups=CHANNEL)
    write("w4a16-group-32", 53, config_groups=GROUP_32)
    static = {
        "group_0": dict(
            targets=["Linear"],
            weights=dict(num_bits=8, type="int", symmetric=True, strategy="channel"),
            input_activations=dict(num_bits=8, type="int", symmetric=False, strategy="tensor", dynamic=False),
        )
    }
    write("w8a8-static", 54, calibrate=True, config_groups=static)
    shutil.rmtree(SCRATCH)
