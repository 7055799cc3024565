"""A text classifier: an encoder is fine-tuned in floats, and trained on to have int4 weights, with the labels and what the float classifier says.

    python examples/train_text_classifier.py MODEL train.jsonl dev.jsonl OUT --schemes int4 w4a8 --control

A line of the files is an object with `text` and `label` (0, 1, …). MODEL is a directory or a name of the Hub: an encoder, or a classifier that is trained already, as
OUT/float is after the first run. Each scheme is written to OUT as a directory that transformers loads.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

import fewbit.torch

SCHEMES = {
    "int4": fewbit.torch.Int4WeightOnlyConfig(group_size=64, scales="learned"),
    "w4a8": fewbit.torch.Int8DynamicActivationInt4WeightConfig(group_size=64, scales="learned"),
    "static": fewbit.torch.Int8StaticActivationInt8WeightConfig(),
}
LONGEST, BATCH = 64, 16


class Texts:
    """The texts of a file as token ids, and their labels."""

    def __init__(self, path: str | Path, tokenizer: Any) -> None:
        lines = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line]
        self.tokenizer = tokenizer
        self.ids = [tokenizer(line["text"], truncation=True, max_length=LONGEST) for line in lines]
        self.labels = torch.tensor([line["label"] for line in lines])

    def batch(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """These texts, padded to the longest of them."""
        found: dict[str, torch.Tensor] = dict(self.tokenizer.pad([self.ids[row] for row in rows.tolist()], return_tensors="pt"))
        return found

    def shuffled(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        """The rows of batches of an epoch. Texts of much the same length come together, so that there is little padding."""
        for part in torch.randperm(len(self.labels), generator=generator).split(BATCH * 32):
            lengths = torch.tensor([len(self.ids[row]["input_ids"]) for row in part.tolist()])
            rows = part[lengths.argsort(stable=True)].split(BATCH)
            for number in torch.randperm(len(rows), generator=generator).tolist():
                yield rows[number]


@torch.no_grad()
def logits_of(model: torch.nn.Module, texts: Texts) -> torch.Tensor:
    """What a model says of all texts, in their order."""
    model.eval()
    order = torch.tensor([len(ids["input_ids"]) for ids in texts.ids]).argsort()
    found = torch.cat([model(**texts.batch(rows)).logits for rows in order.split(64)])
    return found[order.argsort()]


def accuracy(model: torch.nn.Module, texts: Texts) -> float:
    """The share of right labels, in percent."""
    return float((logits_of(model, texts).argmax(dim=-1) == texts.labels).double().mean()) * 100


def train(model: torch.nn.Module, texts: Texts, epochs: int, lr: float, teacher: torch.Tensor | None = None, seed: int = 0) -> None:
    """The loop that one has anyway. With the logits of a teacher half of the loss is the distance to its answers (Hinton et al. 2015, arXiv:1503.02531)."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    # Scales move in steps of their own, and nothing pulls them to 0.
    scales = [parameter for name, parameter in model.named_parameters() if "fake_quant" in name]
    others = [parameter for name, parameter in model.named_parameters() if "fake_quant" not in name]
    groups = [{"params": others, "lr": lr}, {"params": scales, "lr": lr / 10, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.01)
    steps = epochs * -(-len(texts.labels) // BATCH)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 20, steps)
    temperature = 2.0
    model.train()
    for _ in range(epochs):
        for rows in texts.shuffled(generator):
            logits = model(**texts.batch(rows)).logits
            loss = functional.cross_entropy(logits, texts.labels[rows])
            if teacher is not None:
                answers = (teacher[rows] / temperature).softmax(dim=-1)
                loss = (loss + temperature**2 * functional.cross_entropy(logits / temperature, answers)) / 2
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()


def main(
    model: str, training: str | Path, judging: str | Path, out: str | Path, schemes: list[str], epochs: int = 3, lr: float = 5e-5, seed: int = 0, control: bool = False
) -> dict[str, float]:
    """Writes the models to ``out``; returns and prints the accuracy of each stage."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    texts, judged = Texts(training, tokenizer), Texts(judging, tokenizer)
    found: dict[str, float] = {}

    def tell(stage: str, classifier: torch.nn.Module) -> None:
        found[stage] = accuracy(classifier, judged)
        print(f"{stage:30} {found[stage]:6.2f} %", flush=True)  # noqa: T201

    torch.manual_seed(seed)
    is_trained = any("ForSequenceClassification" in name for name in AutoConfig.from_pretrained(model).architectures or [])
    classifier = AutoModelForSequenceClassification.from_pretrained(model, num_labels=int(texts.labels.max()) + 1)
    if not is_trained:
        train(classifier, texts, epochs, lr, seed=seed)
        classifier.save_pretrained(Path(out, "float"))
        tokenizer.save_pretrained(Path(out, "float"))
    tell("float", classifier)
    teacher = logits_of(classifier, texts)
    if control:
        longer = copy.deepcopy(classifier)
        train(longer, texts, epochs, lr, teacher, seed)
        tell("float, trained as long", longer)
    for scheme in schemes:
        prepared = fewbit.torch.prepare_qat(classifier, SCHEMES[scheme])
        tell(f"{scheme}, before training", prepared)
        train(prepared, texts, epochs, lr, teacher, seed)
        tell(f"{scheme}, trained", prepared)
        quantized = fewbit.torch.convert(prepared)
        tell(f"{scheme}, converted", quantized)
        fewbit.torch.save_pretrained(quantized, Path(out, scheme))
        tokenizer.save_pretrained(Path(out, scheme))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("training")
    parser.add_argument("judging")
    parser.add_argument("out")
    parser.add_argument("--schemes", nargs="*", choices=list(SCHEMES), default=["w4a8"])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--control", action="store_true", help="train the float model on, too, as long as the others")
    given = parser.parse_args()
    main(given.model, given.training, given.judging, given.out, given.schemes, given.epochs, given.learning_rate, given.seed, given.control)
