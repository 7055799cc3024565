"""The examples of quantization-aware training, run as their users do."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

torch.set_num_threads(1)


def example(name: str) -> Any:
    """The module of an example."""
    path = Path(__file__).parents[1] / "examples" / f"{name}.py"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_a_classifier_is_trained_to_have_int4_weights(tmp_path: Path) -> None:
    """It has learned its task, and keeps it in the executor and in transformers."""
    found = example("train_w4a8").main(str(tmp_path / "model"))
    assert found["float"] > 90
    for stage in ("W4A8, trained", "W4A8, converted", "W4A8, loaded by transformers"):
        # 500 answers: ten of them.
        assert found[stage] >= found["float"] - 2, stage


def write_texts(path: Path, number: int, seed: int) -> None:
    """Texts of three to nine words, with the label 1 where more of them are good than bad."""
    generator = torch.Generator().manual_seed(seed)
    lines = []
    while len(lines) < number:
        words = torch.randint(0, 40, (int(torch.randint(3, 10, (1,), generator=generator)),), generator=generator).tolist()
        good, bad = sum(word < 10 for word in words), sum(10 <= word < 20 for word in words)
        if good != bad:
            lines.append(json.dumps({"text": " ".join(f"w{word}" for word in words), "label": int(good > bad)}))
    path.write_text("\n".join(lines), encoding="utf-8")


def write_encoder(directory: Path) -> None:
    """A BERT of random weights, with a word for each token."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(40))])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(directory)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, max_position_embeddings=32
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(directory)


def test_a_text_classifier_is_fine_tuned_and_trained_on_with_labels_and_its_own_answers(tmp_path: Path) -> None:
    write_encoder(tmp_path / "encoder")
    write_texts(tmp_path / "train.jsonl", 800, 1)
    write_texts(tmp_path / "dev.jsonl", 300, 2)
    module = example("train_text_classifier")
    files = (tmp_path / "train.jsonl", tmp_path / "dev.jsonl", tmp_path)
    found = module.main(str(tmp_path / "encoder"), *files, ["w4a8"], epochs=4, lr=1e-3)
    assert list(found) == ["float", "w4a8, before training", "w4a8, trained", "w4a8, converted"]
    assert found["float"] > 90
    for stage in ("w4a8, trained", "w4a8, converted"):
        # 300 answers: six of them.
        assert found[stage] >= found["float"] - 2, stage
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "w4a8")
    assert loaded.config.quantization_config.quant_method == "compressed-tensors"
    # What is a classifier already is only trained on.
    again = module.main(str(tmp_path / "float"), *files, [], epochs=1, control=True)
    assert again["float"] == found["float"]
    assert list(again) == ["float", "float, trained as long"]
