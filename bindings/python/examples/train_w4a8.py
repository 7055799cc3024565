"""A classifier of transformers that is trained to have int4 weights and inputs of 8 bits, and written as a directory that transformers loads.

It learns on token ids whether a text has more of some words than of others. The float model comes first; then it is trained on with fake quantization, its own
loss being all that says what to do.

    python examples/train_w4a8.py OUT
"""

from __future__ import annotations

import sys

import torch
from transformers import BertConfig, BertForSequenceClassification

import fewbit.torch

VOCABULARY, LENGTH = 100, 12


def texts(number: int, seed: int) -> dict[str, torch.Tensor]:
    """Token ids with their labels: 1 where more than half are even."""
    ids = torch.randint(5, VOCABULARY, (number, LENGTH + 1), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "labels": ((ids % 2 == 0).float().mean(dim=1) > 0.5).long()}


def train(model: torch.nn.Module, steps: int, lr: float) -> None:
    """The loop that one has anyway."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    model.train()
    for number in range(steps):
        loss = model(**texts(32, number)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: torch.nn.Module) -> float:
    """The share of right labels of texts that were not trained on, in percent."""
    batch = texts(500, 10**6)
    labels = batch.pop("labels")
    return float((model.eval()(**batch).logits.argmax(dim=-1) == labels).float().mean()) * 100


def main(directory: str) -> dict[str, float]:
    """Writes the model to ``directory``; returns and prints the accuracy of each stage."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, max_position_embeddings=32
    )
    model = BertForSequenceClassification(config)
    train(model, 150, 1e-3)
    found = {"float": accuracy(model)}
    prepared = fewbit.torch.prepare_qat(model, fewbit.torch.Int8DynamicActivationInt4WeightConfig(group_size=64, scales="learned"))
    found["W4A8, before training"] = accuracy(prepared)
    train(prepared, 60, 2e-4)
    found["W4A8, trained"] = accuracy(prepared)
    quantized = fewbit.torch.convert(prepared)
    found["W4A8, converted"] = accuracy(quantized)
    fewbit.torch.save_pretrained(quantized, directory)
    found["W4A8, loaded by transformers"] = accuracy(BertForSequenceClassification.from_pretrained(directory))
    for stage, percent in found.items():
        print(f"{stage:30} {percent:5.1f} %")  # noqa: T201
    return found


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "model-w4a8")
