"""Writes `sentences/`, `pooling/` and `wordpiece/`: texts in, token ids and embeddings out, by sentence-transformers.

    FEWBIT_SAMPLE_MODEL=/path/to/all-MiniLM-L6-v2 python generate_sentences.py

Pinned: Python 3.11, torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3, sentence-transformers 6.2.0, safetensors 0.8.0, on a CPU,
one thread. Without FEWBIT_SAMPLE_MODEL the model is looked for in `models/all-MiniLM-L6-v2` under the repository root.
README.md beside this file says what the files hold.
"""

import json
import os
import random
import shutil
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import sentence_transformers
import torch
import transformers
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel, BertTokenizer

HERE = Path(__file__).resolve().parent
SAMPLE = Path(os.environ.get("FEWBIT_SAMPLE_MODEL") or HERE.parents[3] / "models" / "all-MiniLM-L6-v2")

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SIX_HUNDRED_WORDS = " ".join(
    f"{number} {word}"
    for number, word in zip(
        range(300), ["river", "engine", "quietly", "harbour", "seven", "glass", "morning", "ledger", "copper", "walk"] * 30
    )
)

SENTENCES = [
    "",
    " ",
    " \t\n ",
    "a",
    ".",
    "ক",
    "猫",
    "🙂",
    "The quick brown fox jumps over the lazy dog.",
    "the quick brown fox jumps over the lazy dog.",
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG.",
    "A man is playing a guitar.",
    "Someone plays an instrument.",
    "A man is playing a guitar.",
    "How do I reset my password?",
    "I forgot my password, what now?",
    "আমি বাংলায় গান গাই।",
    "বাংলাদেশের রাজধানী ঢাকা, এবং এর জনসংখ্যা প্রায় দুই কোটি।",
    "今天天气很好,我们去公园散步吧。",
    "東京は日本の首都です。",
    "서울은 대한민국의 수도이다.",
    "Привет, как дела?",
    "مرحبا بالعالم",
    "שלום עולם",
    "Crème brûlée, naïve café, Ångström, Żółć",
    "Cre\u0300me bru\u0302le\u0301e in decomposed form",
    "Straße, ﬁne ligature, ½ cup, №5, ™",
    "I ❤️ this! 👩‍👩‍👧‍👦 🇧🇩 👍🏽",
    "line one\nline two\r\nline three\ttabbed",
    "zero\u200bwidth\u200bspaces, a soft\u00adhyphen, no\u00a0break, \ufeffbom",
    "control\u0000characters\u0007inside\u001b[0m",
    "replacement \ufffd character, private use \ue000",
    "https://example.com/path/to/page?query=1&other=two#fragment",
    "write to someone@example.org, or call +880 1711-123456",
    "3.14159 2,718,281 -40 1e-9 0x1F 50% $19.99",
    "2026-11-23T15:04:05Z",
    "don't can't won't it's O'Neill rock'n'roll",
    "state-of-the-art, end-to-end (see e.g. [1]; cf. {2})",
    "!!!???...---***",
    "fn main() { println!(\"{}\", 1 << 3); }",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 99,
    "x" * 101,
    "word" * 300,
    "[CLS] a text that spells special tokens [SEP] [MASK] [PAD] [UNK]",
    "   leading and trailing spaces   ",
    "many      spaces      inside",
    "Dr. Smith paid Mr. Jones 5 dollars.",
    "buffalo buffalo buffalo buffalo buffalo buffalo buffalo buffalo",
    "The stock market fell sharply on Monday after the central bank raised interest rates by half a percentage point, its largest increase in two decades.",
    " ".join(["token"] * 254),
    " ".join(["token"] * 255),
    SIX_HUNDRED_WORDS,
    "日" * 400,
]

POOLING_TEXTS = ["", "a", "hello world", "Hello, World!", "the cat sat on the mat", "the the the the the the the the the the the the", "zzz unknown 42", " ".join(["the"] * 50)]


def rows(model, texts):
    """Embeddings, one text at a time, so that nothing is padded."""
    return torch.cat([torch.from_numpy(model.encode([text], batch_size=1, show_progress_bar=False)) for text in texts])


def with_prompt(model, text):
    return model.prompts.get(model.default_prompt_name, "") + text


def token_ids(model, texts):
    return [model.tokenizer(with_prompt(model, text), truncation=True, max_length=model.max_seq_length)["input_ids"] for text in texts]


def truncated(model, texts):
    return [len(model.tokenizer(with_prompt(model, text), truncation=False)["input_ids"]) > model.max_seq_length for text in texts]


def write_expected(folder, model, texts):
    ids, cut, embeddings = token_ids(model, texts), truncated(model, texts), rows(model, texts)
    assert embeddings.dtype == torch.float32 and torch.isfinite(embeddings).all()
    lines = [json.dumps({"text": text, "token_ids": i, "truncated": c}, ensure_ascii=True) for text, i, c in zip(texts, ids, cut)]
    (folder / "expected.jsonl").write_text("\n".join(lines) + "\n")
    save_file({"embeddings": embeddings.contiguous()}, folder / "expected.safetensors")
    return embeddings, ids, cut


def sentences():
    folder = HERE / "sentences" / "all-MiniLM-L6-v2"
    folder.mkdir(parents=True)
    model = SentenceTransformer(str(SAMPLE), device="cpu")
    assert model.max_seq_length == 256 and next(model.parameters()).dtype == torch.float32
    embeddings, ids, cut = write_expected(folder, model, SENTENCES)
    wide = rows(SentenceTransformer(str(SAMPLE), device="cpu", model_kwargs={"dtype": torch.float64}), SENTENCES)
    error = (embeddings.double() - wide.double()).abs().max().item()
    print(f"sentences: {len(SENTENCES)} texts, {sum(map(len, ids))} tokens, {sum(cut)} truncated, f32 error {error:.1e}")
    assert error < 2e-6


# ---- wordpiece/: vocab.txt only -------------------------------------------------------------------------------------

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = (
    ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    + list("!\"#$%&'()*+,-./:;<=>?@[]^_{}~")
    + list("0123456789")
    + list(LETTERS)
    + list("ABCDEHIPTW")
    + ["##" + c for c in LETTERS + "0123456789"]
    + ["the", "The", "THE", "cat", "##ing", "play", "un", "##believ", "##able", "hello", "Hello", "world", "World", "cafe", "café", "caf", "##é", "é", "e\u0301"]
    + ["naive", "##ï", "ü", "ß", "##ß", "i\u0307", "猫", "##猫", "日", "本", "日本", "ক", "##\u09be", "\u0995\u09be", "বাংলা", "🙂", "##🙂", "—", "“", "”", "…", "。", "।", "½", "™", "##™"]
)

WORDPIECE_TEXTS = [
    "",
    " ",
    "hello world",
    "Hello, World!",
    "THE The the",
    "cats playing",
    "unbelievable",
    "unbelievably",
    "café Café cafe\u0301 CAFÉ",
    "naïve ü Ü ß",
    "İstanbul",
    "猫が日本",
    "日本日本",
    "cat猫cat",
    "ক কা বাংলা।",
    "🙂 cat🙂",
    "“hello”—world…",
    "½ a™",
    "12345 3.14",
    "a_b-c/d\\e",
    "a\tb\nc\rd",
    "a\u00a0b\u3000c\u2003d",
    "a\u200bb\u00adc\ufeffd",
    "a\u0000b\ufffdc\u0007d",
    "[CLS] the [SEP] [MASK] [PAD] [UNK] [unused0]",
    "[mask] [Mask]",
    "a" * 100,
    "a" * 101,
    "qwertyuiopasdfghjklzxcvbnm",
    "##s ##ing",
    "don't",
    "Ж cat Ж",
    "$5.00 `x` |y|",
    "𝒽ello ﬁ",
]

WORDPIECE_CASES = {
    # folder: tokenizer_config.json, or None for none
    "no-config": None,
    "uncased": {"do_lower_case": True},
    "cased": {"do_lower_case": False},
    "uncased-keep-accents": {"do_lower_case": True, "strip_accents": False},
    "cased-strip-accents": {"do_lower_case": False, "strip_accents": True},
    "chinese-characters-together": {"do_lower_case": True, "tokenize_chinese_chars": False},
}


def write_tokenizer(folder, config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    if config is not None:
        config = {"tokenizer_class": "BertTokenizer", "model_max_length": 512} | config
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def wordpiece():
    for name, config in WORDPIECE_CASES.items():
        folder = HERE / "wordpiece" / name
        write_tokenizer(folder, config)
        tokenizer = BertTokenizer.from_pretrained(folder)
        assert len(tokenizer) == len(VOCABULARY) == len(set(VOCABULARY)), name
        lines = [json.dumps({"text": t, "token_ids": tokenizer(t)["input_ids"]}, ensure_ascii=True) for t in WORDPIECE_TEXTS]
        (folder / "expected.jsonl").write_text("\n".join(lines) + "\n")
        unknown = sum(line.count(f" {tokenizer.unk_token_id},") for line in lines)
        print(f"wordpiece/{name}: {len(lines)} texts, {unknown} unknown")


# ---- pooling/: small sentence-transformers models -------------------------------------------------------------------

TRANSFORMER = "sentence_transformers.models.Transformer"
LEGACY_MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
HIDDEN = 16


def legacy(*modes, **more):
    """1_Pooling/config.json as written by sentence-transformers before 6."""
    return {"word_embedding_dimension": HIDDEN} | {f"pooling_mode_{mode}": mode in modes for mode in LEGACY_MODES} | {"include_prompt": True} | more


def current(*modes):
    """1_Pooling/config.json as written by sentence-transformers 6."""
    return {"embedding_dimension": HIDDEN, "pooling_mode": modes[0] if len(modes) == 1 else list(modes), "include_prompt": True}


def modules(*kinds, transformer_path="", current_names=False):
    old = {"Pooling": "sentence_transformers.models.Pooling", "Normalize": "sentence_transformers.models.Normalize", "Dense": "sentence_transformers.models.Dense"}
    new = {
        "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
        "Dense": "sentence_transformers.base.modules.dense.Dense",
    }
    first = "sentence_transformers.base.modules.transformer.Transformer" if current_names else TRANSFORMER
    entries = [{"idx": 0, "name": "0", "path": transformer_path, "type": first}]
    for index, kind in enumerate(kinds, 1):
        entries.append({"idx": index, "name": str(index), "path": f"{index}_{kind}", "type": (new if current_names else old)[kind]})
    return entries


def pooling_case(name, layout, pooling, *, seed, bert=None, settings=None, prompts=None, tokenizer=None):
    folder = HERE / "pooling" / name
    root = folder / (layout[0]["path"] if layout else "")
    root.mkdir(parents=True)
    config = BertConfig(vocab_size=len(VOCABULARY), hidden_size=HIDDEN, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20, max_position_embeddings=32)
    generator = torch.Generator().manual_seed(seed)
    model = BertModel(config, add_pooling_layer=False).eval()
    for key, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data.copy_(1.0 + 0.3 * noise if key.endswith("LayerNorm.weight") else 0.3 * noise)
    model.save_pretrained(root)
    write_tokenizer(root, {"do_lower_case": True} if tokenizer is None else tokenizer)
    if settings is not None:
        (root / "sentence_bert_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    if layout:
        (folder / "modules.json").write_text(json.dumps(layout, indent=2) + "\n")
    for entry in (layout or [])[1:]:
        part = folder / entry["path"]
        if entry["type"].endswith("Pooling"):
            part.mkdir()
            (part / "config.json").write_text(json.dumps(pooling, indent=2) + "\n")
        elif entry["type"].endswith("Dense"):
            part.mkdir()
            dense = {"in_features": HIDDEN, "out_features": 6, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}
            (part / "config.json").write_text(json.dumps(dense, indent=2) + "\n")
            weights = {"linear.weight": torch.randn(6, HIDDEN, generator=generator), "linear.bias": torch.randn(6, generator=generator)}
            save_file(weights, part / "model.safetensors")
    if prompts is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts, indent=2) + "\n")
    sentence_model = SentenceTransformer(str(folder), device="cpu")
    _, ids, cut = write_expected(folder, sentence_model, POOLING_TEXTS)
    print(f"pooling/{name}: {type(sentence_model[-1]).__name__} last, {sum(cut)} truncated")


def pooling():
    case = pooling_case
    case("mean-normalize", modules("Pooling", "Normalize"), legacy("mean_tokens"), seed=1)
    case("mean-legacy-minimal", modules("Pooling"), {"word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False}, seed=2)
    case("cls", modules("Pooling"), legacy("cls_token"), seed=3)
    case("max", modules("Pooling"), legacy("max_tokens"), seed=4)
    case("mean-sqrt-len", modules("Pooling"), legacy("mean_sqrt_len_tokens"), seed=5)
    case("last-token", modules("Pooling", "Normalize"), legacy("lasttoken"), seed=6)
    case("cls-max-mean-normalize", modules("Pooling", "Normalize"), legacy("cls_token", "mean_tokens", "max_tokens"), seed=7)
    case("current-format-mean", modules("Pooling", "Normalize", current_names=True), current("mean"), seed=8)
    case("current-format-max-cls", modules("Pooling", current_names=True), current("max", "cls"), seed=9)
    case("weighted-mean", modules("Pooling"), legacy("weightedmean_tokens"), seed=10)
    case("dense", modules("Pooling", "Dense", "Normalize"), legacy("mean_tokens"), seed=11)
    case("max-seq-length-8", modules("Pooling"), legacy("mean_tokens"), seed=12, settings={"max_seq_length": 8, "do_lower_case": False})
    case("lower-case-in-settings", modules("Pooling"), legacy("mean_tokens"), seed=13, settings={"max_seq_length": 32, "do_lower_case": True}, tokenizer={"do_lower_case": False})
    case("transformer-in-subfolder", modules("Pooling", transformer_path="0_Transformer"), legacy("mean_tokens"), seed=14, settings={"max_seq_length": 32, "do_lower_case": False})
    case("no-modules", None, None, seed=15)
    case("default-prompt", modules("Pooling"), legacy("mean_tokens"), seed=16, prompts={"prompts": {"query": "the cat: "}, "default_prompt_name": "query", "similarity_fn_name": "cosine"})


if __name__ == "__main__":
    assert transformers.__version__ == "5.23.0" and sentence_transformers.__version__ == "6.2.0"
    for name in ("sentences", "pooling", "wordpiece"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    wordpiece()
    pooling()
    sentences()
