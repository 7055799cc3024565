"""Tiny random models of the architectures that fewbit writes as GGUF files, with tokenizers that are trained on the texts of this repository."""

import json
from pathlib import Path

import numpy
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = Path(__file__).resolve().parents[1]
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_3_WORDS = WORDS.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
WIDTH, INNER, LAYERS, HEADS = 128, 256, 2, 4


class Weights:
    """Random tensors, the same every time."""

    def __init__(self, seed):
        self.random = numpy.random.default_rng(seed)
        self.tensors = {}

    def matrix(self, name, *shape, deviation=0.08):
        self.tensors[name] = self.random.normal(0, deviation, shape).astype(numpy.float32)

    def norm(self, name, size):
        self.tensors[name] = (1 + self.random.normal(0, 0.1, size)).astype(numpy.float32)


def training_texts():
    return [line for name in ("ARCHITECTURE.md", "README.md", "CHANGELOG.md") for line in (ROOT / name).read_text().splitlines()]


def byte_level(words, special, around=None, composed=False, ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if composed:
        tokenizer.normalizer = normalizers.NFC()
    if words is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        split = pre_tokenizers.Split(Regex(words), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(training_texts(), trainer)
    if around:
        ids = [(token, tokenizer.token_to_id(token)) for token in special if token in around]
        tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=ids)
    return tokenizer


def sentencepiece():
    """Byte pairs as a sentencepiece file gives them: every cut of a piece into two is a merge."""
    special = ["<unk>", "<s>", "</s>"]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    head = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=head, limit_alphabet=60, show_progress=False)
    trained.train_from_iterator(training_texts(), trainer)
    vocabulary = trained.get_vocab()
    pieces = [piece for piece, id in sorted(vocabulary.items(), key=lambda entry: entry[1]) if id >= len(head)]
    known = set(pieces)
    cuts = ((piece[:at], piece[at:]) for piece in pieces for at in range(1, len(piece)))
    merges = [pair for pair in cuts if pair[0] in known and pair[1] in known]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def write(directory, config, weights, tokenizer_config, tokenizer=None):
    directory.mkdir(parents=True)
    save_file(weights.tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config))
    if tokenizer is not None:
        tokenizer.save(str(directory / "tokenizer.json"))
        (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))


def decoder(directory, model_type, tokenizer, tokenizer_config, *, head_size=32, key_heads=2, norms=False, biases=False, head=False, **fields):
    rows = (tokenizer.get_vocab_size() + 31) // 32 * 32
    prefix = "model." if head else ""
    weights = Weights(3)
    weights.matrix(f"{prefix}embed_tokens.weight", rows, WIDTH, deviation=0.5)
    weights.norm(f"{prefix}norm.weight", WIDTH)
    for layer in range(LAYERS):
        path = f"{prefix}layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights.norm(f"{path}{norm}.weight", WIDTH)
        for name, heads in (("q", HEADS), ("k", key_heads), ("v", key_heads)):
            weights.matrix(f"{path}self_attn.{name}_proj.weight", heads * head_size, WIDTH)
            if biases:
                weights.matrix(f"{path}self_attn.{name}_proj.bias", heads * head_size)
            if norms and name != "v":
                weights.norm(f"{path}self_attn.{name}_norm.weight", head_size)
        weights.matrix(f"{path}self_attn.o_proj.weight", WIDTH, HEADS * head_size)
        for name in ("gate", "up"):
            weights.matrix(f"{path}mlp.{name}_proj.weight", INNER, WIDTH)
        weights.matrix(f"{path}mlp.down_proj.weight", WIDTH, INNER)
    if head:
        weights.matrix("lm_head.weight", rows, WIDTH)
    family = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}[model_type]
    config = {
        "architectures": [family + ("ForCausalLM" if head else "Model")],
        "model_type": model_type,
        "vocab_size": rows,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": key_heads,
        "head_dim": head_size,
        "intermediate_size": INNER,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": not head,
        **fields,
    }
    write(directory, config, weights, tokenizer_config, tokenizer)


def nomic_bert(directory, sample):
    """With the tokenizer of the sample model."""
    rows = json.loads((sample / "config.json").read_text())["vocab_size"]
    weights = Weights(5)
    weights.matrix("embeddings.word_embeddings.weight", rows, WIDTH, deviation=0.5)
    weights.matrix("embeddings.token_type_embeddings.weight", 2, WIDTH)
    weights.norm("embeddings.LayerNorm.weight", WIDTH)
    weights.matrix("embeddings.LayerNorm.bias", WIDTH)
    for layer in range(LAYERS):
        for name in "qkvo":
            weights.matrix(f"layers.{layer}.self_attn.{name}_proj.weight", WIDTH, WIDTH)
        for norm in ("post_attention_layernorm", "post_mlp_layernorm"):
            weights.norm(f"layers.{layer}.{norm}.weight", WIDTH)
            weights.matrix(f"layers.{layer}.{norm}.bias", WIDTH)
        for name in ("gate", "up"):
            weights.matrix(f"layers.{layer}.mlp.{name}_proj.weight", INNER, WIDTH)
        weights.matrix(f"layers.{layer}.mlp.down_proj.weight", WIDTH, INNER)
    config = {
        "architectures": ["NomicBertModel"],
        "model_type": "nomic_bert",
        "vocab_size": rows,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "hidden_act": "silu",
        "layer_norm_eps": 1e-12,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
    }
    write(directory, config, weights, {})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).write_bytes((sample / name).read_bytes())


def make(folder, sample):
    """Writes every model to a folder of its own in ``folder``; their names."""
    end, begin = "<|endoftext|>", "<|begin_of_text|>"
    fast = {"tokenizer_class": "PreTrainedTokenizerFast"}
    pieces = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": False}
    nomic_bert(folder / "nomic-bert", sample)
    qwen = byte_level(WORDS, [end, "<|im_end|>"], f"$A {end}", composed=True)
    decoder(folder / "qwen3", "qwen3", qwen, {**fast, "eos_token": end, "pad_token": end}, norms=True, head_size=64)
    qwen = byte_level(WORDS, [end, "<|im_end|>"], composed=True)
    decoder(folder / "qwen2", "qwen2", qwen, {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": end}, biases=True)
    llama = byte_level(LLAMA_3_WORDS, [begin, "<|end_of_text|>"], f"{begin} $A", ignore_merges=True)
    decoder(folder / "llama-bpe", "llama", llama, {**fast, "bos_token": begin, "eos_token": "<|end_of_text|>"}, head=True)
    decoder(folder / "llama-pieces", "llama", sentencepiece(), pieces)
    rotation = {"rope_type": "linear", "rope_theta": 500000.0, "factor": 4.0}
    plain = byte_level(None, [begin], f"{begin} $A")
    decoder(folder / "llama-linear", "llama", plain, {**fast, "bos_token": begin}, key_heads=HEADS, rope_parameters=rotation)
    scaled = {"rope_theta": 500000.0, "factor": 8.0, "original_max_position_embeddings": 64}
    llama3 = {**scaled, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    decoder(folder / "llama-llama3", "llama", plain, {**fast, "bos_token": begin}, rope_parameters=llama3)
    decoder(folder / "qwen2-yarn", "qwen2", qwen, {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": end}, biases=True, rope_parameters={**scaled, "rope_type": "yarn"})
    decoder(folder / "mistral", "mistral", sentencepiece(), pieces, sliding_window=64)
    return sorted(path.name for path in folder.iterdir())
