"""A classifier of one's own, an ELECTRA encoder with two heads, through every method of the manager.

The encoder has BanglaBERT's architecture, small, and learns what a sentence is about (cricket, weather, food) and whether it is glad or not, from the
few sentences below. Then each method makes a quantized copy of it, and a table says what that costs and gains.

    python examples/electra_two_heads.py
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import ElectraConfig, ElectraModel

import fewbit

TOPICS = ("cricket", "weather", "food")

# (sentence, topic, glad)
SENTENCES = (
    ("বাংলাদেশ আজ ক্রিকেট ম্যাচ জিতেছে", 0, 1),
    ("সাকিব আজ দারুণ বল করেছে", 0, 1),
    ("আমাদের দল শেষ ওভারে ম্যাচ জিতেছে", 0, 1),
    ("মুশফিক আজ দারুণ ব্যাট করেছে", 0, 1),
    ("বাংলাদেশ আজ ক্রিকেট ম্যাচ হেরেছে", 0, 0),
    ("আমাদের দল শেষ ওভারে ম্যাচ হেরেছে", 0, 0),
    ("সাকিব আজ খারাপ বল করেছে", 0, 0),
    ("দল আজ খুব খারাপ খেলেছে", 0, 0),
    ("আজ আকাশ খুব সুন্দর", 1, 1),
    ("সকালে দারুণ রোদ উঠেছে", 1, 1),
    ("আজ বাতাস ঠান্ডা আর সুন্দর", 1, 1),
    ("বৃষ্টির পর আকাশ সুন্দর হয়েছে", 1, 1),
    ("আজ সারাদিন খারাপ বৃষ্টি হয়েছে", 1, 0),
    ("ঝড়ে আজ অনেক ক্ষতি হয়েছে", 1, 0),
    ("আজ খুব খারাপ গরম পড়েছে", 1, 0),
    ("বন্যায় রাস্তা ডুবে ক্ষতি হয়েছে", 1, 0),
    ("মায়ের রান্না ইলিশ মাছ খুব মজার", 2, 1),
    ("বিরিয়ানি আজ দারুণ হয়েছে", 2, 1),
    ("এই দোকানের মিষ্টি খুব মজার", 2, 1),
    ("গরম ভাত আর ডাল মজার খাবার", 2, 1),
    ("এই দোকানের খাবার খুব খারাপ", 2, 0),
    ("মাছ আজ পচা আর খারাপ ছিল", 2, 0),
    ("ডাল আজ খারাপ আর পানসে", 2, 0),
    ("বিরিয়ানি আজ পোড়া আর পানসে ছিল", 2, 0),
)

PADDING, UNKNOWN, CLASS = 0, 1, 2


class WordTokenizer:
    """Ids of words, with one for the class token before them: enough for an example that loads nothing."""

    def __init__(self, texts: list[str]) -> None:
        words = sorted({word for text in texts for word in text.split()})
        self.ids = {word: number for number, word in enumerate(words, start=3)}

    def __call__(self, texts: list[str]) -> dict[str, torch.Tensor]:
        rows = [[CLASS, *(self.ids.get(word, UNKNOWN) for word in text.split())] for text in texts]
        longest = max(len(row) for row in rows)
        ids = torch.tensor([row + [PADDING] * (longest - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids != PADDING).long()}


class ElectraTwoHeads(nn.Module):
    """An encoder with two heads, which takes what the script's dataloader has."""

    def __init__(self, encoder: ElectraModel) -> None:
        super().__init__()
        self.encoder = encoder
        size = encoder.config.hidden_size
        self.topic = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.Linear(size, len(TOPICS)))
        self.glad = nn.Linear(size, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        first = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0]
        return {"topic": self.topic(first), "glad": self.glad(first)}


class Batches:
    """A dataloader of dicts."""

    def __init__(self, tokenizer: WordTokenizer, size: int) -> None:
        self.tokenizer, self.size = tokenizer, size

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for start in range(0, len(SENTENCES), self.size):
            part = SENTENCES[start : start + self.size]
            yield {
                **self.tokenizer([text for text, _, _ in part]),
                "topic": torch.tensor([topic for _, topic, _ in part]),
                "glad": torch.tensor([glad for _, _, glad in part]),
            }


def trained(tokenizer: WordTokenizer, steps: int = 60) -> ElectraTwoHeads:
    """The float model."""
    torch.manual_seed(0)
    config = ElectraConfig(
        vocab_size=len(tokenizer.ids) + 3,
        embedding_size=128,
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = ElectraTwoHeads(ElectraModel(config)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    whole = next(iter(Batches(tokenizer, len(SENTENCES))))
    for _ in range(steps):
        found = model(whole["input_ids"], whole["attention_mask"])
        loss = sum(nn.functional.cross_entropy(found[head], whole[head]) for head in ("topic", "glad"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, batches: Batches) -> float:
    """The share of right answers of both heads, in percent."""
    right = []
    for batch in batches:
        found = model(batch["input_ids"], batch["attention_mask"])
        right += [(found[head].argmax(dim=-1) == batch[head]).float() for head in ("topic", "glad")]
    return float(torch.cat(right).mean()) * 100


def main() -> dict[str, dict[str, float]]:
    """Prints the table, and returns it by method."""
    tokenizer = WordTokenizer([text for text, _, _ in SENTENCES])
    batches: Any = Batches(tokenizer, 8)
    model = trained(tokenizer)
    models: dict[str, nn.Module] = {"float": model}
    manager = fewbit.QuantizationManager(model)
    models["dynamic"] = manager.apply_dynamic_quantization()
    for backend in ("fbgemm", "native"):
        manager.prepare_static_quantization(backend=backend)
        manager.calibrate(batches, device="cpu", num_batches=100)
        models[f"static, {backend}"] = manager.convert_static_quantization()
    models["fp16"] = manager.apply_fp16_quantization("cpu")
    models["int4"] = manager.apply_int4_quantization("cpu")
    table: dict[str, dict[str, float]] = {}
    print(f"{'method':<16}{'accuracy, %':>12}{'size, MB':>10}{'latency, ms':>13}{'samples/s':>11}")
    for name, one in models.items():
        speed = manager.benchmark_inference_speed(one, batches, "cpu", num_iterations=30, warmup=5)
        table[name] = {
            "accuracy": accuracy(one, batches),
            "size_mb": manager.get_model_size(one)["total_size_mb"],
            "latency_ms": speed["mean_latency_ms"],
            "samples_per_sec": speed["throughput_samples_per_sec"],
        }
        row = table[name]
        print(f"{name:<16}{row['accuracy']:>12.1f}{row['size_mb']:>10.2f}{row['latency_ms']:>13.2f}{row['samples_per_sec']:>11.0f}")
    return table


if __name__ == "__main__":
    main()
