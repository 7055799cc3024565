"""Writes `task_heads/`: tiny random models with a task head, and the logits that transformers computes.

    python generate_task_heads.py [CASE ...]

Without names of cases, all of them, and the table in README.md.
Pinned: Python 3.11, torch 2.15.0, transformers 5.23.0, safetensors 0.8.0, numpy 2.4.6, on a CPU, one thread.
With these versions every file comes out the same, byte for byte, on the same kind of CPU.
"""

import copy
import json
import os
import shutil
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import safetensors
import safetensors.torch
import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "task_heads"

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

LENGTHS = (1, 2, 7, 19)
HEADS = {
    "sequence": AutoModelForSequenceClassification,
    "token": AutoModelForTokenClassification,
    "answer": AutoModelForQuestionAnswering,
    "mask": AutoModelForMaskedLM,
}
SHAPE = dict(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20, max_position_embeddings=24)
ROBERTA = SHAPE | dict(max_position_embeddings=26, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2)
DISTILBERT = dict(vocab_size=40, dim=16, n_layers=1, n_heads=2, hidden_dim=20, max_position_embeddings=24)
MODERNBERT = SHAPE | dict(local_attention=8, pad_token_id=0, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3)
DECODER = SHAPE | dict(num_key_value_heads=1, pad_token_id=39, bos_token_id=2, eos_token_id=3)
FAMILIES = {
    "bert": SHAPE | dict(layer_norm_eps=0.02),
    "roberta": ROBERTA | dict(layer_norm_eps=0.02),
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "distilbert": DISTILBERT,
    "electra": SHAPE | dict(embedding_size=12, layer_norm_eps=0.02),
    "mpnet": ROBERTA | dict(layer_norm_eps=0.02),
    "modernbert": MODERNBERT,
    "gte": SHAPE | dict(type_vocab_size=1, pad_token_id=1),
    "nomic_bert": SHAPE | dict(pad_token_id=0),
    "jina_embeddings_v3": ROBERTA,
    "eurobert": DECODER,
    "llama": DECODER,
    "mistral": DECODER,
    "qwen2": DECODER,
    "qwen3": DECODER | dict(head_dim=8),
    "gemma3_text": DECODER | dict(head_dim=8),
    "albert": SHAPE | dict(embedding_size=8, layer_norm_eps=0.02, pad_token_id=0),
    "deberta": SHAPE | dict(relative_attention=True, pos_att_type=["c2p", "p2c"], type_vocab_size=0, layer_norm_eps=0.02, pad_token_id=0),
    "deberta-v2": SHAPE | dict(
        relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8, share_att_key=True, norm_rel_ebd="layer_norm", position_biased_input=False,
        type_vocab_size=0, layer_norm_eps=0.02, pad_token_id=0, pooler_hidden_act="relu",
    ),
}
# Families of which transformers has no class for a head, or one whose tensors have other names than the encoder's.
WITHOUT = {
    "gte": ["answer"],
    "nomic_bert": ["answer"],
    "eurobert": ["answer"],
    "llama": ["answer", "mask"],
    "mistral": ["answer", "mask"],
    "qwen2": ["answer", "mask"],
    "qwen3": ["answer", "mask"],
    "gemma3_text": ["answer", "mask", "token"],
}


def randomize(model, generator):
    """Large enough that dropping any bias, any normalization's parameter or an activation shows in the logits."""
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if "LayerNorm" in name or "norm" in name:
            value = 1.0 + 0.3 * noise if name.endswith("weight") else 0.2 * noise
        elif "embeddings" in name and "project" not in name:
            value = 0.4 * noise
        else:
            value = 0.25 * noise
        parameter.data.copy_(value)
    return model


def logits(model, input_ids):
    with torch.no_grad():
        output = model(input_ids=torch.tensor([input_ids]))
    if hasattr(output, "start_logits"):
        return torch.stack([output.start_logits[0], output.end_logits[0]], dim=-1)
    return output.logits[0]


rows = []


def case(name, model_type, head, *, seed, edit=None, saved_by=None, ending=(), note="", **settings):
    """Writes one folder. Every sequence ends with the tokens `ending`. `edit` maps the saved tensors to what is stored instead; `saved_by` is a class other than the one that is read."""
    if WANTED and name not in WANTED:
        return
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    config = AutoConfig.for_model(model_type, **(FAMILIES[model_type] | settings))
    generator = torch.Generator().manual_seed(seed)
    model = randomize((saved_by or HEADS[head]).from_config(config), generator).eval()
    model.tie_weights()
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if edit is not None:
        path = folder / "model.safetensors"
        safetensors.torch.save_file(edit(safetensors.torch.load_file(path)), path, metadata={"format": "pt"})
    # The reference is what transformers makes of the files.
    model, info = HEADS[head].from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    model.eval()
    # ElectraModel, for one, has no pooler, and none is read by a head of tokens.
    missing = [key for key in info["missing_keys"] if "pooler" not in key]
    assert not missing and not info["mismatched_keys"], (name, info)
    wide = copy.deepcopy(model).double()
    tensors, worst = {}, 0.0
    for index, length in enumerate(LENGTHS):
        input_ids = torch.randint(4, 39, (length,), generator=generator).tolist() + list(ending)
        tensors[f"sequence.{index}.input_ids"] = torch.tensor(input_ids)
        tensors[f"sequence.{index}.logits"] = logits(model, input_ids)
        exact = logits(wide, input_ids)
        worst = max(worst, (tensors[f"sequence.{index}.logits"].double() - exact).abs().max().item())
    safetensors.torch.save_file({key: value.contiguous().clone() for key, value in tensors.items()}, folder / "expected.safetensors")
    assert worst < 5e-6, (name, worst)
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size < 60_000, (name, size)
    config = json.loads((folder / "config.json").read_text())
    rows.append((name, config["architectures"][0], f"{size // 1000} KB", f"{worst:.1e}", note))
    print(*rows[-1], sep=" | ", flush=True)


def old_layer_norm_names(tensors):
    def rename(name):
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    return {rename(name): tensor for name, tensor in tensors.items()}


def other_decoder(tensors):
    table = tensors["bert.embeddings.word_embeddings.weight"]
    return tensors | {"cls.predictions.decoder.weight": table.flip(0).contiguous()}


def cases():
    three = {0: "negative", 1: "neutral", 2: "positive"}
    tags = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
    for number, family in enumerate(FAMILIES):
        seed, name = 100 + 10 * number, family.replace("_", "-")
        heads = {
            "sequence": dict(id2label=three, label2id={v: k for k, v in three.items()}, note="3 labels"),
            "token": dict(id2label=tags, label2id={v: k for k, v in tags.items()}, note="5 labels"),
            "answer": {},
            "mask": {},
        }
        for offset, (head, options) in enumerate(heads.items()):
            if head not in WITHOUT.get(family, []):
                case(f"{name}-{head}", family, head, seed=seed + offset, **options)
    case("qwen3-sequence-padding-at-the-end", "qwen3", "sequence", seed=30, pad_token_id=7, ending=(7, 7), num_labels=1, note="texts end with the padding token: the last other token is read")
    case("llama-sequence-no-padding-token", "llama", "sequence", seed=31, pad_token_id=None, ending=(7,), note="`pad_token_id` null: the last token is read")
    case("eurobert-sequence-bos", "eurobert", "sequence", seed=32, classifier_pooling="bos", note="the first token")
    case("eurobert-sequence-mean", "eurobert", "sequence", seed=33, classifier_pooling="mean", note="the mean of hidden states; by default that of logits")
    case("eurobert-mask-bias", "eurobert", "mask", seed=34, mlp_bias=True, tie_word_embeddings=False, note="a decoder of its own, with the bias that `mlp_bias` gives it")
    case("bert-one-label", "bert", "sequence", seed=10, num_labels=1, note="one label, no problem_type")
    case("bert-regression", "bert", "sequence", seed=11, num_labels=1, problem_type="regression", note="one label, regression")
    case("bert-multi-label", "bert", "sequence", seed=12, num_labels=4, problem_type="multi_label_classification", note="4 labels, several at once")
    case("bert-default-labels", "bert", "sequence", seed=13, note="config.json says nothing of labels: 2")
    case("bert-mask-relu", "bert", "mask", seed=14, hidden_act="relu", note="the head has the encoder's activation")
    case("bert-mask-old-layer-norm-names", "bert", "mask", seed=15, edit=old_layer_norm_names, note="`LayerNorm.gamma`, `LayerNorm.beta`")
    case(
        "bert-mask-not-tied", "bert", "mask", seed=16, tie_word_embeddings=False,
        note="`tie_word_embeddings` false: matrix and bias of the decoder's own",
    )
    case("bert-mask-other-decoder", "bert", "mask", seed=17, edit=other_decoder, note="tied by config.json, but the file has another matrix, which transformers then takes")
    case("bert-pre-training", "bert", "mask", seed=25, saved_by=AutoModelForPreTraining, note="predicts words with the same head; `cls.seq_relationship` is not read")
    case("roberta-mask-relu", "roberta", "mask", seed=18, hidden_act="relu", note="the head has GELU whatever the encoder has")
    case("distilbert-mask-relu", "distilbert", "mask", seed=19, activation="relu")
    case("electra-sequence-relu", "electra", "sequence", seed=20, hidden_act="relu", num_labels=3, note="the head has GELU whatever the encoder has")
    case("electra-mask-equal-sizes", "electra", "mask", seed=21, embedding_size=16, note="no projection")
    case(
        "modernbert-sequence-mean", "modernbert", "sequence", seed=22, classifier_pooling="mean", classifier_bias=True, classifier_activation="silu",
        norm_bias=True, norm_eps=0.02, num_labels=1, note="pooling, bias, activation, norm of its own",
    )
    case("modernbert-mask-no-bias", "modernbert", "mask", seed=23, decoder_bias=False, classifier_bias=True, norm_bias=True, note="decoder without bias")
    case("modernbert-token-biases", "modernbert", "token", seed=24, classifier_bias=True, norm_bias=True, classifier_activation="relu", num_labels=3)


def write_readme():
    begin, end = "<!-- heads: written by generate_task_heads.py -->", "<!-- end of heads -->"
    readme = HERE / "README.md"
    text = readme.read_text()
    table = "| case | model class | size | f32 error of torch | what it is for |\n|---|---|---|---|---|\n"
    table += "".join("| " + " | ".join((f"`{a}`", b, c, d, e)) + " |\n" for a, b, c, d, e in rows)
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    readme.write_text(f"{head}{begin}\n{table}{end}{tail}")


WANTED = sys.argv[1:]

if __name__ == "__main__":
    assert transformers.__version__ == "5.23.0" and torch.__version__.startswith("2.15.0") and safetensors.__version__ == "0.8.0"
    if not WANTED:
        shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(exist_ok=True)
    cases()
    if not WANTED:
        write_readme()
