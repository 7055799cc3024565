"""Writes `sentencepiece/`: tiny sentencepiece models, and the ids that transformers gives for directories with one and without tokenizer.json.

    python generate_sentencepiece.py

Pinned: Python 3.11, transformers 5.23.0, tokenizers 0.23.3, sentencepiece 0.2.3, protobuf 7.36.2, on a CPU, one thread; torch is not needed.
README.md beside this file says what the files hold.
"""

import contextlib
import io
import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import sentencepiece
from transformers import AutoTokenizer

HERE = Path(__file__).resolve().parent
OUT = HERE / "sentencepiece"

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "the dog and the fox walk by the sea, and the sea is grey",
    "L'été, le chien dort près de la forêt; où vas-tu ?",
    "Où est la bibliothèque de l'école ? Elle est près d'ici.",
    "আমি বাংলায় গান গাই, আমি বাংলার গান গাই",
    "আমার সোনার বাংলা, আমি তোমায় ভালোবাসি",
    "我喜欢在海边散步。今天天气很好。",
    "今日は天気がいいから、散歩しましょう。",
    "numbers 1 2 3 and 10 or 2026, prices: 3.50 € or $4",
    "emails like someone@example.com and paths /usr/lib",
    "walking walked walks walker; jumping jumped jumps jumper",
] * 20

TEXTS = [
    "",
    " ",
    "the dog",
    "The quick brown fox jumps over the lazy dog.",
    "  runs   of\t\tblanks \n and\r\nlines  ",
    "\u00a0no\u00a0break\u3000ideographic\u2009thin\u200bzero width\ufeff",
    "আমি বাংলায় গান গাই",
    "আমার সোনার বাংলা, ক্ষ ত্র শ্রী য\u09bc ড\u09bc",
    "我喜欢在海边散步。",
    "日本語とEnglish混ぜる",
    "emoji 😀 👩‍👩‍👧 🇧🇩 ☃\ufe0f",
    "e\u0301te\u0301 et \u00e9t\u00e9, a\u0308 \u212b \u1e9b\u0323",
    "ﬁ ﬂ ½ ² ① Ⅷ ｆｕｌｌ ｗｉｄｔｈ …",
    "control \x00 \x01 \x1f \x7f \x85 \u2028 \u2029 characters",
    "unknown ⵣ ⵣⵣ Ω ಠ_ಠ",
    "<s> hello </s> <pad> <unk> <mask> x<mask>y",
    "a <mask> b  <mask>  c<mask>",
    "<s>NOTUSED </s>NOTUSED <unk>NOTUSED",
    "▁already ▁ marked▁",
    "<sep> <sep>dog <user> the<user>dog <user>",
    "[NEW]dog [NEW] the [NEW]",
    "antidis" * 40,
    "x" * 300,
    "dog" * 100 + " " + "বাংলা" * 60,
    "MiXeD CaSe ÀÉÎ",
    "İstanbul ſtraße ẞ",
    "null\x00inside",
]

# Ligatures to two letters, a wide space to a narrow one: a table of some hundred bytes; that of nmt_nfkc has 240 KB.
RULES = "FB01\t66 69\nFB02\t66 6C\n3000\t20\nBD\t31 2F 32\n"


def train(name, rules=None, **options):
    """A model as sentencepiece's trainer writes it. It has the names of the trainer's files, which are therefore relative."""
    out = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        if rules is not None:
            Path("rules.tsv").write_text(rules)
            options["normalization_rule_tsv"] = "rules.tsv"
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES), model_writer=out, num_threads=1, minloglevel=2, hard_vocab_limit=False, **options
        )
    (OUT / f"{name}.model").write_bytes(out.getvalue())


def models():
    small = {"vocab_size": 220, "character_coverage": 1.0, "rules": RULES}
    train("nfkc", vocab_size=260, character_coverage=0.98)
    train("rules", **small)
    train("as-they-are", vocab_size=200, normalization_rule_name="identity")
    # Symbols of the trainer's user; byte pieces, which these classes do not use; a padding piece of its own, which moves the others.
    train("symbols", **small, user_defined_symbols=["<user>", "dog"], control_symbols=["<sep>", "<s>NOTUSED"])
    train("byte-pieces", **{**small, "vocab_size": 480}, byte_fallback=True)
    train("padding-piece", **small, pad_id=3)
    train("unknown-is-last", **small, bos_id=0, eos_id=1, unk_id=2)
    for kind in ["bpe", "word", "char"]:
        train(kind, **{**small, "vocab_size": 180}, model_type=kind)


CONFIG, MAP, ADDED, MODEL = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json"
XLM = {CONFIG: {"tokenizer_class": "XLMRobertaTokenizer"}, MODEL: {"model_type": "xlm-roberta"}}
CAMEMBERT = {CONFIG: {"tokenizer_class": "CamembertTokenizer"}, MODEL: {"model_type": "camembert"}}


def token(content, **flags):
    return {"__type": "AddedToken", "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, **flags}


def cases():
    """Name -> (model, its file name, other files)."""
    result = {}
    for kind, base in {"xlm-roberta": XLM, "camembert": CAMEMBERT}.items():

        def case(name, model="rules", file="sentencepiece.bpe.model", kind=kind, base=base, **files):
            files = {f"{key}.json": value for key, value in files.items()}
            if isinstance(files.get(CONFIG), dict):
                files[CONFIG] = {**base[CONFIG], **files[CONFIG]}
            result[f"{kind}/{name}"] = (model, file, {**base, **files})

        for model in ["nfkc", "rules", "as-they-are", "symbols", "byte-pieces", "padding-piece", "unknown-is-last", "bpe", "word", "char"]:
            case(model, model)
        case("tokenizer.model", file="tokenizer.model")
        case("spiece.model", file="spiece.model")
        case("by-model-type", tokenizer_config=None)
        case("fast", tokenizer_config={"tokenizer_class": base[CONFIG]["tokenizer_class"] + "Fast"})
        case("no-prefix-space", tokenizer_config={"add_prefix_space": False})
        case("limit", tokenizer_config={"model_max_length": 9})
        case("limit-left", tokenizer_config={"model_max_length": 9, "truncation_side": "left"})
        case("lower-case", tokenizer_config={"do_lower_case": True})
        # As save_pretrained of transformers 4 wrote it.
        roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "cls_token": "<s>", "pad_token": "<pad>"}
        mask = {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": True, "single_word": False}
        case("map", special_tokens_map={**roles, "mask_token": mask})
        case("map-symbols", "symbols", special_tokens_map={**roles, "mask_token": mask})
        case("map-additional", "symbols", special_tokens_map={"additional_special_tokens": ["[NEW]"]})
        case("map-extra", "symbols", special_tokens_map={"extra_special_tokens": ["[NEW]"]})
        for name in ["additional_special_tokens", "extra_special_tokens"]:
            for label, value in {"new": ["[NEW]"], "object": [token("[NEW]", lstrip=True, special=True)], "empty": [], "null": None, "named": {"n": "[NEW]"}}.items():
                case(f"{name}-{label}", "symbols", tokenizer_config={name: value})
        for role in ["bos_token", "eos_token", "unk_token", "pad_token", "mask_token", "cls_token"]:
            for label, value in {"word": "▁the", "new": "[NEW]", "object": token("[NEW]", rstrip=True, special=True), "null": None}.items():
                case(f"{role}-{label}", tokenizer_config={role: value})
        case("pad-is-unk", tokenizer_config={"pad_token": "<unk>"})
        mask_id = {"xlm-roberta": 136, "camembert": 139}[kind]
        case("added_tokens-own", added_tokens={"<mask>": mask_id})
        case("added_tokens-next", added_tokens={"[NEW]": mask_id + 1})
        case("added_tokens-far", added_tokens={"[NEW]": 1000})
        case("added_tokens-known", added_tokens={"<mask>": 0})
        case("decoder-empty", "symbols", tokenizer_config={"added_tokens_decoder": {}})
        case("split", "symbols", tokenizer_config={"split_special_tokens": True})
    result["backend/tokenizer.model"] = ("rules", "tokenizer.model", {CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast"}, MODEL: {"model_type": "bert"}})
    result["bert/sentencepiece.bpe.model"] = ("rules", "sentencepiece.bpe.model", {CONFIG: {"tokenizer_class": "BertTokenizer"}, MODEL: {"model_type": "bert"}})
    result["albert/spiece.model"] = ("rules", "spiece.model", {CONFIG: {"tokenizer_class": "AlbertTokenizer"}, MODEL: {"model_type": "albert"}})
    return result


def run(model, file, files):
    """The ids of every text, or the error that transformers has."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(OUT / f"{model}.model", Path(folder) / file)
        for name, content in files.items():
            if content is not None:
                (Path(folder) / name).write_text(json.dumps(content), encoding="utf-8")
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except Exception as error:
            return None, f"{type(error).__name__}: {error}".splitlines()[0].replace(folder, "DIR")[:160]
        return [tokenizer(text, truncation=True)["input_ids"] for text in TEXTS], None


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    models()
    lines, results = [], []
    for name, (model, file, files) in cases().items():
        files = {key: value for key, value in files.items() if value is not None}
        ids, error = run(model, file, files)
        if ids is not None and ids not in results:
            results.append(ids)
        case = {"name": name, "model": model, "file": file, "files": files, "result": None if ids is None else results.index(ids), "error": error}
        lines.append(json.dumps(case, ensure_ascii=False, separators=(",", ":")))
    results = [json.dumps(ids, separators=(",", ":")) for ids in results]
    with open(OUT / "cases.json", "w", encoding="utf-8") as out:
        out.write('{"texts":' + json.dumps(TEXTS) + ',\n"results":[\n' + ",\n".join(results) + '\n],\n"cases":[\n' + ",\n".join(lines) + "\n]}\n")
    for path in sorted(OUT.iterdir()):
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
