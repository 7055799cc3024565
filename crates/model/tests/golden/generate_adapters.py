"""Writes `adapters/`: PEFT adapters of the tiny models in `architectures/`, with the hidden states of base and adapter together.

    python generate_adapters.py

Pinned: Python 3.11, torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0, numpy 2.4.6, on a CPU, one thread. peft is not
among `interop/requirements.txt`: install it (`pip install --no-deps peft==0.21.2`) beside them.

A folder holds `adapter_config.json` and `adapter_model.safetensors` as `save_pretrained` of peft writes them, `base.txt`, the name of the
folder in `architectures/` whose files belong beside them, and `expected.safetensors`: the encoder of `PeftModel.from_pretrained`, base and
adapter unmerged, in eval mode and float32.

The script asserts that `AutoModel.from_pretrained` of a directory with the files of both, which puts the adapter on the base too, gives the
same states; but for DoRA, where the states that transformers 5.23 gives differ from those of PEFT, with which the adapter was made.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import safetensors.torch
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModel, AutoModelForSequenceClassification

HERE = Path(__file__).resolve().parent
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def beside(base, adapter, into):
    """A directory with the files of the base and of the adapter."""
    for folder in (HERE / "architectures" / base, adapter):
        for file in folder.iterdir():
            if file.name != "expected.safetensors":
                shutil.copy(file, into / file.name)


def case(name, base, config, seed, model_class=AutoModel, dtype=None):
    folder = HERE / "adapters" / name
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(seed)
    model = model_class.from_pretrained(HERE / "architectures" / base, dtype=torch.float32)
    peft = get_peft_model(model, config)
    for parameter_name, parameter in sorted(peft.named_parameters()):
        # What training would have changed; large enough that every factor, scale and magnitude shows.
        if "lora_magnitude_vector" in parameter_name:
            parameter.data.mul_(1.0 + 0.3 * torch.rand(parameter.shape, generator=generator))
        elif "lora_" in parameter_name:
            parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        elif "modules_to_save" in parameter_name:
            parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    peft.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    saved = json.loads(path.read_text())
    saved["base_model_name_or_path"] = base
    # Sets have no order of their own.
    saved["target_modules"] = sorted(saved["target_modules"]) if isinstance(saved["target_modules"], list) else saved["target_modules"]
    path.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")
    if dtype is not None:
        path = folder / "adapter_model.safetensors"
        tensors = {key: value.to(dtype) for key, value in safetensors.torch.load_file(path).items()}
        safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    (folder / "base.txt").write_text(base + "\n")

    with tempfile.TemporaryDirectory() as together:
        beside(base, folder, Path(together))
        in_transformers = AutoModel.from_pretrained(together, dtype=torch.float32).eval()
    base_model = model_class.from_pretrained(HERE / "architectures" / base, dtype=torch.float32)
    both = PeftModel.from_pretrained(base_model, folder).eval().get_base_model().base_model
    alone = AutoModel.from_pretrained(HERE / "architectures" / base, dtype=torch.float32).eval()
    expected, least, keys = {}, float("inf"), safetensors.torch.load_file(folder / "adapter_model.safetensors").keys()
    for index, length in enumerate((2, 5, 17)):
        ids = torch.randint(5, alone.config.vocab_size, (length,), generator=generator)
        with torch.no_grad():
            states = both(input_ids=ids[None]).last_hidden_state[0]
            before = alone(input_ids=ids[None]).last_hidden_state[0]
            through_transformers = in_transformers(input_ids=ids[None]).last_hidden_state[0]
        agreement = (states - through_transformers).abs().max().item()
        assert config.use_dora or agreement < 1e-5, f"{name}: transformers differs by {agreement}"
        least = min(least, (states - before).abs().max().item())
        expected[f"sequence.{index}.input_ids"] = ids
        expected[f"sequence.{index}.last_hidden_state"] = states.contiguous()
    assert least > 0.05, f"{name}: the adapter has no effect"
    safetensors.torch.save_file(expected, folder / "expected.safetensors")
    print(f"{name}: {len(keys)} tensors, difference to the base at least {least:.3f}; {sorted(keys)[0]}")


shutil.rmtree(HERE / "adapters", ignore_errors=True)
case("lora", "bert", LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"]), 1)
case("rslora", "bert", LoraConfig(r=4, lora_alpha=8, use_rslora=True, target_modules=["query", "output.dense"]), 2)
case(
    "patterns",
    "bert",
    LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["query", "key", "intermediate.dense"],
        rank_pattern={"query": 2, r"encoder\.layer\.1\..*dense": 6},
        alpha_pattern={r"^encoder\.layer\.0\.attention\.self\.key": 3, r"layer.1.attention.self.(key|query)": 20},
    ),
    3,
)
case("dora", "bert", LoraConfig(r=4, lora_alpha=8, use_dora=True, target_modules=["query", "dense"]), 4)
case("dora-rslora-f16", "bert", LoraConfig(r=3, lora_alpha=5, use_dora=True, use_rslora=True, target_modules=["value"]), 5, dtype=torch.float16)
case("embeddings", "bert", LoraConfig(r=4, lora_alpha=8, target_modules=["word_embeddings", "query"]), 6)
case("modules-to-save", "bert", LoraConfig(r=4, lora_alpha=8, target_modules=["query"], modules_to_save=["output.dense", "LayerNorm"]), 7)
case("prefixed-base", "bert-sequence-classification", LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"]), 8)
case("distilbert", "distilbert", LoraConfig(r=4, lora_alpha=16, target_modules=["q_lin", "lin2"]), 10)
case("modules-of-other-names", "gte", LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"]), 12)
case("fp16-base", "bert-fp16", LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"]), 11)
case(
    "trained-as-a-classifier",
    "bert-sequence-classification",
    LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"], task_type="SEQ_CLS"),
    9,
    model_class=AutoModelForSequenceClassification,
)
