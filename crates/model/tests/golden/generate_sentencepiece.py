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
    "12345 67.89 ٣٤ 2026-11 x1y22",
    "   three before",
    "two behind  ",
    "\n",
    "\n\n\nlines\n\tindented\n    more\n\n",
    "a  b   c    d     e",
    "🎉🎉🏳️‍🌈🇧🇩x🎉",
    "漢字仮名交じり文、한국어 텍스트。",
    "supercalifragilistic" * 20,
    "<bos>text<eos> <pad>dog<begin> <?>",
    "<0x0A><0x41> <0xE0>",
    "Ångström naïve thethethe dogdog the dog",
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
    # Byte pairs, as Llama's and Gemma's files have them.
    bytes = {"model_type": "bpe", "byte_fallback": True, "split_digits": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "vocab_size": 460}
    train("bpe-llama", **bytes, allow_whitespace_only_pieces=True, character_coverage=0.98)
    gemma = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>", "eos_piece": "<eos>", "bos_piece": "<bos>"}
    train("bpe-gemma", **bytes, **gemma, add_dummy_prefix=False, user_defined_symbols=["<mask>", "\n", "\n\n", "▁▁", "▁▁▁", "<unused0>"])
    train("bpe-nfkc", model_type="bpe", vocab_size=260, character_coverage=0.98)
    train("bpe-symbols", **{**small, "vocab_size": 200}, model_type="bpe", user_defined_symbols=["<user>", "dog", "th", "the"], control_symbols=["<sep>", "<s>NOTUSED"])
    names = {"unk_piece": "<?>", "bos_piece": "<begin>", "eos_id": -1, "unk_id": 1, "bos_id": 0}
    train("bpe-names", **{**small, "vocab_size": 180}, **names, model_type="bpe", split_digits=True)
    train("unigram-names", **small, **names)
    # Unigram pieces as the files of ALBERT and of DeBERTa have them.
    albert = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "pad_piece": "<pad>", "control_symbols": ["[CLS]", "[SEP]"], "user_defined_symbols": ["[MASK]", "(", ")", "-"]}
    train("unigram-albert", **small, **albert)
    deberta = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"}
    train("unigram-deberta", **small, **deberta)


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
    result.update(byte_pairs())
    result.update(berts_special_tokens())
    result["backend/tokenizer.model"] = ("rules", "tokenizer.model", {CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast"}, MODEL: {"model_type": "bert"}})
    result["bert/sentencepiece.bpe.model"] = ("rules", "sentencepiece.bpe.model", {CONFIG: {"tokenizer_class": "BertTokenizer"}, MODEL: {"model_type": "bert"}})
    return result


def berts_special_tokens():
    """The same for the classes of Unigram models that have BERT's special tokens."""
    result = {}
    classes = {"albert": ("AlbertTokenizer", "spiece.model", "unigram-albert"), "deberta-v2": ("DebertaV2Tokenizer", "spm.model", "unigram-deberta")}
    for kind, (name, own_file, own_model) in classes.items():

        def case(label, model=own_model, file=own_file, kind=kind, name=name, **files):
            files = {f"{key}.json": value for key, value in files.items()}
            if CONFIG not in files or isinstance(files[CONFIG], dict):
                files[CONFIG] = {"tokenizer_class": name, **files.get(CONFIG, {})}
            result[f"{kind}/{label}"] = (model, file, {MODEL: {"model_type": kind}, **files})

        for model in ["unigram-albert", "unigram-deberta", "rules", "symbols", "byte-pieces", "unknown-is-last", "unigram-names", "bpe", "word"]:
            case(model, model)
        for file in ["tokenizer.model", "spiece.model", "spm.model", "sentencepiece.bpe.model"]:
            case(file, file=file)
        case("by-model-type", tokenizer_config=None)
        case("fast", tokenizer_config={"tokenizer_class": name + "Fast"})
        for setting in ["do_lower_case", "keep_accents", "split_by_punct", "add_prefix_space", "add_bos_token", "add_eos_token"]:
            for label, value in {"true": True, "false": False, "null": None}.items():
                case(f"{setting}-{label}", tokenizer_config={setting: value})
        case("unk_id", tokenizer_config={"unk_id": 0})
        case("unk_id-and-token", tokenizer_config={"unk_id": 0, "unk_token": "▁the"})
        for role in ["bos_token", "eos_token", "unk_token", "pad_token", "mask_token", "cls_token", "sep_token"]:
            for label, value in {"word": "▁the", "new": "[NEW]", "object": token("[NEW]", rstrip=True, special=True), "null": None}.items():
                case(f"{role}-{label}", tokenizer_config={role: value})
        case("limit-left", tokenizer_config={"model_max_length": 9, "truncation_side": "left"})
        case("split", "symbols", tokenizer_config={"split_special_tokens": True})
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        case("decoder", tokenizer_config={"added_tokens_decoder": {"0": {"content": "[PAD]", **plain}, "1": {"content": "[CLS]", **plain}}})
    return result


def byte_pairs():
    """The same for the classes whose files are of byte pairs, and for the class that is none, which takes both kinds."""
    result = {}
    classes = {"llama": ("LlamaTokenizer", "llama"), "gemma": ("GemmaTokenizer", "gemma"), "backend": ("PreTrainedTokenizerFast", "bert")}
    for kind, (name, model_type) in classes.items():

        def case(label, model="bpe-llama", file="tokenizer.model", kind=kind, name=name, model_type=model_type, **files):
            files = {f"{key}.json": value for key, value in files.items()}
            if CONFIG not in files or isinstance(files[CONFIG], dict):
                files[CONFIG] = {"tokenizer_class": name, **files.get(CONFIG, {})}
            result[f"{kind}/{label}"] = (model, file, {MODEL: {"model_type": model_type}, **files})

        for model in ["bpe", "bpe-llama", "bpe-gemma", "bpe-nfkc", "bpe-symbols", "bpe-names", "rules", "byte-pieces", "unigram-names", "word", "char"]:
            case(model, model)
        case("sentencepiece.bpe.model", file="sentencepiece.bpe.model")
        case("fast", tokenizer_config={"tokenizer_class": name.removesuffix("Fast") + "Fast"})
        for other in ["bert", "modernbert", "xlm-roberta", "llama", "mistral", "gemma2", "gemma3_text"]:
            case(f"model-type-{other}", model_type=other)
        case("by-model-type", tokenizer_config=None)
        for model in ["bpe-llama", "bpe-gemma"]:
            for label, value in {"true": True, "false": False, "null": None}.items():
                for prefix, values in {"": {}, "-without-prefix": {"add_prefix_space": False}, "-prefix": {"add_prefix_space": True}, "-prefix-null": {"add_prefix_space": None}}.items():
                    case(f"{model}-legacy-{label}{prefix}", model, tokenizer_config={"legacy": value, **values})
            for first in [True, False, None]:
                for last in [True, False, None]:
                    case(f"{model}-around-{first}-{last}", model, tokenizer_config={"add_bos_token": first, "add_eos_token": last})
        around = {"add_bos_token": True, "add_eos_token": True}
        case("around-by-map", special_tokens_map={**around, "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False, "rstrip": True, "normalized": True, "single_word": False}})
        case("around-unigram", "rules", tokenizer_config=around)
        case("around-names", "bpe-names", tokenizer_config=around)
        case("around-unigram-names", "unigram-names", tokenizer_config=around)
        for role in ["bos_token", "eos_token", "unk_token", "pad_token", "mask_token", "cls_token"]:
            for label, value in {"word": "▁the", "new": "[NEW]", "object": token("[NEW]", rstrip=True, special=True), "null": None, "blank": "a b", "colon": "a:0"}.items():
                case(f"{role}-{label}", "bpe-symbols", tokenizer_config={role: value, **around})
        for name_of_extra in ["additional_special_tokens", "extra_special_tokens"]:
            for label, value in {"new": ["[NEW]"], "empty": [], "null": None, "named": {"n": "[NEW]"}}.items():
                case(f"{name_of_extra}-{label}", "bpe-symbols", tokenizer_config={name_of_extra: value, **around})
        case("limit", tokenizer_config={"model_max_length": 9, **around})
        case("limit-left", tokenizer_config={"model_max_length": 9, "truncation_side": "left", **around})
        case("split", "bpe-symbols", tokenizer_config={"split_special_tokens": True, **around})
        # As the published checkpoints have them.
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        decoder = {str(id): {"content": content, **plain} for id, content in enumerate(["<unk>", "<s>", "</s>"])}
        roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
        case("decoder", tokenizer_config={"added_tokens_decoder": decoder, **roles, "legacy": True, "add_bos_token": True, "add_eos_token": False, "model_max_length": 1e30})
        case("decoder-around-unigram", "rules", tokenizer_config={"added_tokens_decoder": decoder, **roles, **around})
        case("decoder-empty", "bpe-symbols", tokenizer_config={"added_tokens_decoder": {}})
        case("decoder-renames", "bpe-gemma", tokenizer_config={"added_tokens_decoder": {"9": {"content": "[NEW]", **plain}}})
        case("decoder-renames-part", "bpe-symbols", tokenizer_config={"added_tokens_decoder": {"9": {"content": "[NEW]", **plain}}})
        objects = {role: {"content": content, **{key: value for key, value in plain.items() if key != "special"}} for role, content in roles.items()}
        case("map", special_tokens_map=objects, tokenizer_config={"add_bos_token": True, "sp_model_kwargs": {}, "legacy": None})
        case("added_tokens-own", "bpe-gemma", added_tokens={"<mask>": 4})
        case("added_tokens-next", "bpe-names", added_tokens={"[NEW]": 180}, tokenizer_config={"pad_token": "<begin>", "eos_token": None, "unk_token": "<?>", "bos_token": "<begin>", "mask_token": None})
        case("added_tokens-far", "bpe-names", added_tokens={"[NEW]": 1000})
        # With tokenizer.json, of which these classes keep the last step.
        between = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<user>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {"<user>": {"id": "<user>", "ids": [5], "tokens": ["<user>"]}}}
        case("stored", tokenizer=[])
        case("stored-by-model-type", tokenizer=[], tokenizer_config=None)
        case("stored-mistral", tokenizer=[], model_type="mistral")
        case("stored-processor", tokenizer=[["post_processor", between]])
        case("stored-processor-around", tokenizer=[["post_processor", between]], tokenizer_config=around)
        case("stored-around", tokenizer=[], tokenizer_config=around)
        case("stored-around-by-map", tokenizer=[], special_tokens_map=around)
        case("stored-processor-around-by-map", tokenizer=[["post_processor", between]], special_tokens_map={"add_bos_token": True})
        case("stored-legacy", tokenizer=[["normalizer", None], ["pre_tokenizer", None]], tokenizer_config={"legacy": True})
        case("stored-changed-model", tokenizer=[["model.unk_token", "<user>"], ["model.byte_fallback", False], ["model.fuse_unk", False], ["model.ignore_merges", True]])
        case("stored-byte-level", tokenizer=[["pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]], tokenizer_config={"add_prefix_space": True})
        case("stored-unigram", tokenizer=[["model", {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁the", -1.5]], "byte_fallback": False}]])
    return result


def stored():
    """What the cases change of: a tokenizer.json of byte pairs, with a normalizer that the classes do not take over."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(OUT / "bpe-symbols.model", Path(folder) / "tokenizer.model")
        (Path(folder) / CONFIG).write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", "pad_token": "<unk>", "legacy": False}))
        AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
        tokenizer = json.loads((Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))
        return {**tokenizer, "normalizer": {"type": "Lowercase"}, "decoder": None}


def changed(base, changes):
    """tokenizer.json with other values at some paths."""
    result = json.loads(json.dumps(base))
    for path, value in changes:
        *parents, last = path.split(".")
        part = result
        for parent in parents:
            part = part[parent]
        part[last] = value
    return result


def run(model, file, files, base):
    """The ids of every text, or the error that transformers has."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(OUT / f"{model}.model", Path(folder) / file)
        for name, content in files.items():
            if name == "tokenizer.json":
                content = changed(base, content)
            if content is not None:
                (Path(folder) / name).write_text(json.dumps(content), encoding="utf-8")
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except Exception as error:
            return None, f"{type(error).__name__}: {error}".splitlines()[0].replace(folder, "DIR")[:160]
        return [ids_of(tokenizer, text) for text in TEXTS], None


def ids_of(tokenizer, text):
    """None for a text that the tokenizer fails at, as one does that has no unknown token."""
    try:
        return tokenizer(text, truncation=True)["input_ids"]
    except Exception:
        return None


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    models()
    lines, results, lists = [], [], {}
    base = stored()
    for name, (model, file, files) in cases().items():
        files = {key: value for key, value in files.items() if value is not None}
        ids, error = run(model, file, files, base)
        if ids is not None:
            # Most cases share the ids of most texts.
            ids = [None if of_text is None else lists.setdefault(tuple(of_text), len(lists)) for of_text in ids]
            if ids not in results:
                results.append(ids)
        case = {"name": name, "model": model, "file": file, "files": files, "result": None if ids is None else results.index(ids), "error": error}
        lines.append(json.dumps(case, ensure_ascii=False, separators=(",", ":")))
    lists = [json.dumps(ids, separators=(",", ":")) for ids in lists]
    results = [json.dumps(ids, separators=(",", ":")) for ids in results]
    with open(OUT / "cases.json", "w", encoding="utf-8") as out:
        out.write('{"texts":' + json.dumps(TEXTS) + ',\n"tokenizer.json":' + json.dumps(base, ensure_ascii=False, separators=(",", ":")) + ',\n"lists":[\n' + ",\n".join(lists) + '\n],\n"results":[\n' + ",\n".join(results) + '\n],\n"cases":[\n' + ",\n".join(lines) + "\n]}\n")
    for path in sorted(OUT.iterdir()):
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
