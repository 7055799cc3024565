"""Tiny transformers models for the tests of whole encoders."""

from __future__ import annotations

from typing import Any

import torch
import transformers

VOCABULARY = 99

_SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_DECODER = {**_SIZES, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0}

CONFIGS: dict[str, Any] = {
    "bert": lambda: transformers.BertConfig(**_SIZES, max_position_embeddings=64),
    "roberta": lambda: transformers.RobertaConfig(**_SIZES, max_position_embeddings=64, type_vocab_size=1),
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(**_SIZES, max_position_embeddings=64, type_vocab_size=1),
    "electra": lambda: transformers.ElectraConfig(**_SIZES, embedding_size=16, max_position_embeddings=64),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=VOCABULARY, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=64
    ),
    "albert": lambda: transformers.AlbertConfig(**_SIZES, embedding_size=16, max_position_embeddings=64),
    "mpnet": lambda: transformers.MPNetConfig(**_SIZES, max_position_embeddings=64),
    "deberta-v2": lambda: transformers.DebertaV2Config(
        **_SIZES, max_position_embeddings=64, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8, type_vocab_size=0
    ),
    "modernbert": lambda: transformers.ModernBertConfig(
        **_SIZES, max_position_embeddings=64, local_attention=8, global_attn_every_n_layers=2, pad_token_id=0, cls_token_id=1, sep_token_id=2
    ),
    "qwen3": lambda: transformers.Qwen3Config(**_DECODER, head_dim=8),
    "gemma3": lambda: transformers.Gemma3TextConfig(**_DECODER, head_dim=8, sliding_window=16, layer_types=["sliding_attention", "full_attention"]),
}


def encoder(family: str, seed: int = 0) -> Any:
    """The encoder of a family with random weights, in eval mode."""
    config = CONFIGS[family]()
    torch.manual_seed(seed)
    model = transformers.AutoModel.from_config(config).eval()
    with torch.no_grad():
        # The usual start has weights so small that every token comes out alike.
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(0.0, 0.2 if "embedding" in name else 0.15)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.05)
    return model


def batch(lengths: tuple[int, ...] = (9, 5, 7), *, seed: int = 1, left: bool = False) -> dict[str, torch.Tensor]:
    """Padded token ids, none of them a padding id, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    ids = torch.randint(5, VOCABULARY, (len(lengths), longest), generator=generator)
    mask = torch.zeros(len(lengths), longest, dtype=torch.int64)
    for row, length in enumerate(lengths):
        mask[row, longest - length :] = 1 if left else 0
        if not left:
            mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask}


def with_padding_ids(inputs: dict[str, torch.Tensor], padding_id: int) -> dict[str, torch.Tensor]:
    """The same with the padding id where the mask is 0, as tokenizers do."""
    ids = torch.where(inputs["attention_mask"] == 0, torch.tensor(padding_id), inputs["input_ids"])
    return {**inputs, "input_ids": ids}


class TwoHeads(torch.nn.Module):
    """A module of its own around an encoder: what users write."""

    def __init__(self, inner: Any, size: int = 32) -> None:
        super().__init__()
        self.encoder = inner
        self.topic = torch.nn.Linear(size, 3)
        self.tone = torch.nn.Sequential(torch.nn.Linear(size, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        first = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0]
        return {"topic": self.topic(first), "tone": self.tone(first)}
