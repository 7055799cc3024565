"""Writes checkpoints of well-known shapes with random weights: their speed is that of the real ones, and nothing need be downloaded.

    python random_models.py NAME DIRECTORY --tokenizer MODEL

The weights are those of transformers' own initialization with a fixed seed. The tokenizer files are MODEL's, which must have BERT's
vocabulary: the ids that it gives to texts are words of every one of these models, if other ones than the real tokenizer would give.
"""

import argparse
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

SEED = 20_000
TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"]


@dataclass
class RandomModel:
    """A shape to make, and what it is measured with."""

    # Names in transformers.
    config: str
    model: str
    # What differs from the defaults of the configuration, which are the published model's.
    fields: dict
    # Of --shapes.
    shapes: list
    # Of the weights in the file: the published model's.
    dtype: str = "float32"


MODELS = {
    # CTranslate2's converter reads position_embedding_type, which BertConfig no longer has by default.
    "bert-base": RandomModel("BertConfig", "BertModel", {"position_embedding_type": "absolute"}, ["1x16", "1x128", "8x128", "32x128"]),
    # 2,048 and 8,192 tokens are beyond the window of the local layers.
    "modernbert-base": RandomModel("ModernBertConfig", "ModernBertModel", {}, ["1x128", "8x128", "1x2048", "1x8192"]),
    "deberta-v3-base": RandomModel(
        "DebertaV2Config",
        "DebertaV2Model",
        {
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "share_att_key": True,
            "position_buckets": 256,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
        },
        ["1x128", "8x128"],
    ),
    "qwen3-embedding-0.6b": RandomModel(
        "Qwen3Config",
        "Qwen3Model",
        {
            "vocab_size": 151_669,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "max_window_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
            # One pass gives the embedding, nothing is generated.
            "use_cache": False,
        },
        ["1x16", "1x128", "4x512"],
        "bfloat16",
    ),
}


def write(name, directory, tokenizer):
    """Makes `directory`, renamed into place when it is whole."""
    import torch
    import transformers

    shape = MODELS[name]
    directory.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        whole = Path(scratch) / "model"
        config = getattr(transformers, shape.config)(**shape.fields)
        network = getattr(transformers, shape.model)(config).eval()
        network.to(getattr(torch, shape.dtype)).save_pretrained(whole)
        for file in TOKENIZER_FILES:
            if (tokenizer / file).exists():
                shutil.copyfile(tokenizer / file, whole / file)
        whole.rename(directory)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(MODELS))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="MODEL")
    arguments = parser.parse_args()
    write(arguments.name, arguments.directory, arguments.tokenizer)


if __name__ == "__main__":
    main()
