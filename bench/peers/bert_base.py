"""Writes a checkpoint with the shape of BERT-base and random weights: its speed is BERT-base's, and nothing need be downloaded.

    python bert_base.py DIRECTORY --tokenizer MODEL

The weights are those of transformers' own initialization with a fixed seed. The tokenizer files are MODEL's, which must
have BERT's vocabulary.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

SEED = 20_000
TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"]


def write(directory, tokenizer):
    """Makes `directory`, renamed into place when it is whole."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        whole = Path(scratch) / "model"
        # CTranslate2's converter reads this field, which BertConfig no longer has by default.
        config = BertConfig(position_embedding_type="absolute")
        BertModel(config, add_pooling_layer=True).eval().save_pretrained(whole)
        for name in TOKENIZER_FILES:
            if (tokenizer / name).exists():
                shutil.copyfile(tokenizer / name, whole / name)
        whole.rename(directory)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="MODEL")
    arguments = parser.parse_args()
    write(arguments.directory, arguments.tokenizer)


if __name__ == "__main__":
    main()
