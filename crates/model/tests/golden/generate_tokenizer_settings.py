"""Writes `tokenizer_settings/`: tiny tokenizer directories, one per setting and value, with the ids that transformers gives.

    TRANSFORMERS4_PYTHON=/path/to/transformers4/bin/python python generate_tokenizer_settings.py

Pinned: Python 3.11, torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3, sentence-transformers 6.2.0 and safetensors 0.8.0, on a CPU, one
thread. TRANSFORMERS4_PYTHON is the interpreter of an environment with transformers 4.57.6 and tokenizers 0.22.2; it needs no torch.
README.md beside this file says what the files hold.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

HERE = Path(__file__).resolve().parent
OUT = HERE / "tokenizer_settings"

TEXTS = [
    "",
    "hello world",
    " hello",
    "Hello WORLD",
    "CAFÉ café",
    "中文中",
    "hello ☃ zzz",
    "hello [MASK] world [mask]",
    "hello <mask> world",
    "[NEW]hello [NEW] world [new]x[NEW] [NEWS]",
    "<s>hello</s> [CLS] [SEP] [UNK]",
    "world hello cafe a b c a hello world",
    "ﬁ  hello",
]

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["hello", "world", "cafe", "Hello", "WORLD", "CAFE", "new", "mask", "中", "文", "cls", "sep", "unk"]
PIECES = list("[]<>/.é☃CAFEÉHW")


def special(ids, names, **flags):
    default = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": ids[name], "content": name, **default, **flags.get(name, {})} for name in names]


def word_piece(names, mask):
    """A tokenizer.json of BERT's kind whose special tokens are `names` (unk, cls, sep, pad, mask); no other word of `names` is known."""
    vocabulary = {
        token: index
        for index, token in enumerate([*names, *WORDS, *PIECES, *LETTERS, *("##" + letter for letter in LETTERS), "##中", "##文", "##é", "[CLS2]"])
    }
    unk, cls, sep = names[0], names[1], names[2]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special(vocabulary, names, **mask),
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": cls, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": sep, "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {token: {"id": token, "ids": [vocabulary[token]], "tokens": [token]} for token in (cls, sep)},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": unk, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocabulary},
    }


def byte_level():
    """A tokenizer.json of RoBERTa's kind."""
    from tokenizers.pre_tokenizers import ByteLevel

    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet())]
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "hello"), ("w", "o"), ("r", "l"), ("wo", "rl"), ("worl", "d"), ("Ġ", "world")]
    vocabulary += ["".join(merge) for merge in merges] + ["<mask>"]
    vocabulary = {token: index for index, token in enumerate(vocabulary)}
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special(vocabulary, names, **{"<mask>": {"lstrip": True}}),
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True, "add_prefix_space": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False,
            "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary, "merges": [list(merge) for merge in merges],
        },
    }  # fmt: skip


# A normalization table of sentencepiece 0.2.3 (trained with `normalization_rule_tsv`): the ligatures U+FB01 and U+FB02 to two letters each.
CHARSMAP = (
    "AAQAAAC4AwDvvAIArBwCAAAAAICBHQAAAwAAgAcAAACCCQAACQAAAAgAAAALAAAACgAAAA0AAAAMAAAADwAAAA4AAAARAAAAEAAAABMAAAASAAAAFQAAABQAAAAXAAAAFgAAABkAAAAY"
    "AAAAGwAAABoAAAAdAAAAHAAAAB8AAAAeAAAAIQAAACAAAAAjAAAAIgAAACUAAAAkAAAAJwAAACYAAAApAAAAKAAAACsAAAAqAAAALQAAACwAAAAvAAAALgAAADEAAAAwAAAAMwAAADIA"
    "AAA1AAAANAAAADcAAAA2AAAAOQAAADgAAAA7AAAAOgAAAD0AAAA8AAAAPwAAAD4AAABBAAAAQAAAAEMAAABCAAAARQAAAEQAAABHAAAARgAAAEkAAABIAAAASwAAAEoAAABNAAAATAAA"
    "AE8AAABOAAAAUQAAAFAAAABTAAAAUgAAAFUAAABUAAAAVwAAAFYAAABZAAAAWAAAAFsAAABaAAAAXQAAAFwAAABfAAAAXgAAAGEAAABgAAAAYwAAAGIAAABlAAAAZAAAAGcAAABmAAAA"
    "aQAAAGgAAABrAAAAagAAAG0AAABsAAAAbwAAAG4AAABxAAAAcAAAAHMAAAByAAAAdQAAAHQAAAB3AAAAdgAAAHkAAAB4AAAAewAAAHoAAAB9AAAAfAAAAH8AAAB+AAAAgQAAAIAAAACD"
    "AAAAggAAAIUAAACEAAAAhwAAAIYAAACJAAAAiAAAAIsAAACKAAAAjQAAAIwAAACPAAAAjgAAAJEAAACQAAAAkwAAAJIAAACVAAAAlAAAAJcAAACWAAAAmQAAAJgAAACbAAAAmgAAAJ0A"
    "AACcAAAAnwAAAJ4AAAChAAAAoAAAAKMAAACiAAAApQAAAKQAAACnAAAApgAAAKkAAACoAAAAqwAAAKoAAACtAAAArAAAAK8AAACuAAAAsQAAALAAAACzAAAAsgAAALUAAAC0AAAAtwAA"
    "ALYAAAC5AAAAuAAAALsAAAC6AAAAvQAAALwAAAC/AAAAvgAAAMEAAADAAAAAwwAAAMIAAADFAAAAxAAAAMcAAADGAAAAyQAAAMgAAADLAAAAygAAAM0AAADMAAAAzwAAAM4AAADRAAAA"
    "0AAAANMAAADSAAAA1QAAANQAAADXAAAA1gAAANkAAADYAAAA2wAAANoAAADdAAAA3AAAAN8AAADeAAAA4QAAAOAAAADjAAAA4gAAAOUAAADkAAAA5wAAAOYAAADpAAAA6AAAAOsAAADq"
    "AAAA7QAAAOwAAADvAAAA7gAAAPEAAADwAAAA8wAAAPIAAAD1AAAA9AAAAPcAAAD2AAAA+QAAAPgAAAD7AAAA+gAAAP0AAAD8AAAA/wAAAP4AAABmaQBmbAA="
)


def unigram(first):
    """A tokenizer.json of XLM-RoBERTa's or CamemBERT's kind; `first` are the pieces before the words."""
    pieces = [[token, 0.0] for token in first]
    words = ["▁", "▁hello", "▁world", "hello", "world", "▁cafe", "fi", "mask", "new"]
    pieces += [[word, -1.0 - index / 8] for index, word in enumerate(words)]
    pieces += [[piece, -6.0] for piece in [*LETTERS, *"[]<>/.éCAFEÉHWLORDNSMKUP中文"]]
    pieces += [["<mask>", 0.0]]
    ids = {token: index for index, (token, _) in enumerate(pieces)}
    names = [name for name in ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if name in ids]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special(ids, names, **{"<mask>": {"lstrip": True}}),
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": CHARSMAP},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ("<s>", "</s>")},
        },
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "model": {"type": "Unigram", "unk_id": ids["<unk>"], "byte_fallback": False, "vocab": pieces},
    }


# ---- cases: name -> files; a value None takes a file of the base directory away ------------------------------------------------

TOKENIZER, CONFIG, MAP, ADDED, MODEL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json"


def changed(path, value):
    """The base's tokenizer.json with one value replaced; `path` is separated by dots."""
    return {"change": path, "to": value}


def apply(tokenizer, change):
    copy = json.loads(json.dumps(tokenizer))
    *parents, last = change["change"].split(".")
    part = copy
    for name in parents:
        part = part[name]
    part[last] = change["to"]
    return copy


def token(content, **flags):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True, **flags}


def added(content, **flags):
    return {"__type": "AddedToken", **token(content, **flags)}


WRONG = {"null": None, "text": "yes", "one": 1, "zero": 0, "list": []}


def cases(kind, base):
    """All variations of one class."""
    tokenizer, config = base[TOKENIZER], base[CONFIG]
    vocabulary = tokenizer["model"]["vocab"]
    size = len(vocabulary)
    words = {name: index for index, (name, _) in enumerate(vocabulary)} if isinstance(vocabulary, list) else vocabulary
    mask = "[MASK]" if "[MASK]" in words else "<mask>"
    result = {"as-saved": {}, "no-config": {CONFIG: None}, "no-tokenizer-json": {TOKENIZER: None}}

    def setting(name, value, label, files=None):
        result[f"{name}-{label}"] = {CONFIG: {**config, name: value}, **(files or {})}

    def flag(name, path=None):
        for label, value in {"true": True, "false": False, **WRONG}.items():
            setting(name, value, label)
        if path:
            for label, value in {"true": True, "false": False}.items():
                file = changed(path, value)
                result[f"{name}-silent-file-{label}"] = {TOKENIZER: file}
                setting(name, not value, f"{str(not value).lower()}-file-{label}", {TOKENIZER: file})
                setting(name, None, f"null-file-{label}", {TOKENIZER: file})

    for name in ["do_lower_case", "strip_accents", "tokenize_chinese_chars"]:
        path = {"do_lower_case": "lowercase", "strip_accents": "strip_accents", "tokenize_chinese_chars": "handle_chinese_chars"}[name]
        flag(name, f"normalizer.{path}" if kind in ("bert", "mpnet", "backend-word-piece") else None)
    flag("add_prefix_space", "pre_tokenizer.add_prefix_space" if kind in ("roberta", "backend-byte-level") else None)
    for name in ["trim_offsets", "split_special_tokens", "clean_up_tokenization_spaces", "add_bos_token", "add_eos_token", "legacy", "from_slow", "do_basic_tokenize"]:
        flag(name)
    for name, value in {
        "never_split": ["hello"], "backend": "sentencepiece", "errors": "strict", "wordpieces_prefix": "@@", "lowercase": False, "tokenizer_file": "/nowhere.json",
        "vocab_file": "/nowhere.txt", "padding_side": "left", "use_fast": False, "name_or_path": 7, "max_length": 3, "stride": 1, "truncation_strategy": "only_first",
        "pad_to_multiple_of": 8, "init_inputs": [], "model_input_names": ["input_ids", "token_type_ids"], "unknown_setting": [1],
    }.items():  # fmt: skip
        setting(name, value, "set")
    setting("padding_side", "middle", "wrong")

    # Limits and sides.
    for label, value in {
        "5": 5, "float": 5.0, "fraction": 5.5, "1e30": 1e30, "huge": 1000000000000000019884624838656, "null": None, "text": "5", "true": True, "list": [],
    }.items():  # fmt: skip
        setting("model_max_length", value, label)
        setting("max_len", value, label)
    setting("max_len", 5, "and-model_max_length-null", {CONFIG: {**config, "max_len": 5, "model_max_length": None}})
    setting("max_len", 5, "and-model_max_length-7", {CONFIG: {**config, "max_len": 5, "model_max_length": 7}})
    left = {"direction": "Left", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    for label, value in {"left": "left", "right": "right", "wrong": "Left", "null": None}.items():
        result[f"truncation_side-{label}"] = {CONFIG: {**config, "truncation_side": value, "model_max_length": 5}}
        result[f"truncation_side-{label}-file-left"] = {
            CONFIG: {**config, "truncation_side": value, "model_max_length": 5}, TOKENIZER: changed("truncation", left),
        }  # fmt: skip
    result["truncation-of-the-file"] = {TOKENIZER: changed("truncation", left)}
    result["truncation-of-the-file-and-limit"] = {TOKENIZER: changed("truncation", left), CONFIG: {**config, "model_max_length": 5}}
    padding = {"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PADDING]"}
    result["padding-of-the-file"] = {TOKENIZER: changed("padding", padding)}

    # Special tokens by name.
    for role in ["unk_token", "cls_token", "sep_token", "pad_token", "mask_token", "bos_token", "eos_token", "image_token"]:
        for label, value in {
            "word": "hello", "new": "[NEW]", "object": added("hello", lstrip=True), "object-new": added("[NEW]", lstrip=True, rstrip=True),
            "object-normalized": added("[NEW]", normalized=True), "object-untyped": token("hello"), "null": None, "number": 4,
        }.items():  # fmt: skip
            setting(role, value, label)
            if label in ("word", "object", "object-new", "new", "null"):
                bare = changed("added_tokens", [])
                setting(role, value, f"{label}-none-in-the-file", {TOKENIZER: bare})
        for label, value in {"word": "world", "new": "[NEW]", "object": token("world", lstrip=True), "null": None, "number": 4, "list": ["a"]}.items():
            result[f"map-{role}-{label}"] = {MAP: {role: value}, CONFIG: {**config, role: "hello"}}
    result["added-tokens-of-the-file-none"] = {TOKENIZER: changed("added_tokens", [])}
    result["map-do_lower_case"] = {MAP: {"do_lower_case": False, "model_max_length": 5}}
    result["map-and-decoder"] = {MAP: {"cls_token": "world"}, CONFIG: {**config, "added_tokens_decoder": {}}}
    result["map-wrong"] = {MAP: []}
    for key in ["additional_special_tokens", "extra_special_tokens"]:
        for label, value in {
            "new": ["[NEW]"], "two": ["[NEW]", "[OLD]"], "object": [added("[NEW]", lstrip=True)], "object-untyped": [token("[NEW]")], "dict": {"new_token": "[NEW]"},
            "dict-number": {"new_token": 4}, "null": None, "text": "[NEW]", "numbers": [4], "empty": [], "word": ["hello"],
        }.items():  # fmt: skip
            setting(key, value, label)
            result[f"map-{key}-{label}"] = {MAP: {key: value}}
        setting(key, ["[NEW]"], "none-in-the-file", {TOKENIZER: changed("added_tokens", [])})
    both = {"additional_special_tokens": ["[NEW]"], "extra_special_tokens": ["[OLD]"]}
    result["extra-and-additional"] = {CONFIG: {**config, **both}}
    result["extra-null-and-additional"] = {CONFIG: {**config, **both, "extra_special_tokens": None}}
    plain = {"content": "[NEW]", "lstrip": True, "normalized": False}
    result["map-extra_special_tokens-plain-object"] = {MAP: {"extra_special_tokens": [plain]}}
    result["extra_special_tokens-plain-object"] = {CONFIG: {**config, "extra_special_tokens": [plain]}}
    result["map-additional_special_tokens-plain-object"] = {MAP: {"additional_special_tokens": [plain]}}
    result["map-additional-config-extra"] = {CONFIG: {**config, "extra_special_tokens": ["[OLD]"]}, MAP: {"additional_special_tokens": ["[NEW]"]}}
    result["map-additional-config-additional"] = {CONFIG: {**config, "additional_special_tokens": ["[OLD]"]}, MAP: {"additional_special_tokens": ["[NEW]"]}}
    result["map-extra-config-extra"] = {CONFIG: {**config, "extra_special_tokens": ["[OLD]"]}, MAP: {"extra_special_tokens": ["[NEW]"]}}

    # Added tokens.
    own = {str(entry["id"]): {key: value for key, value in entry.items() if key != "id"} for entry in tokenizer["added_tokens"]}
    for label, value in {
        "none": {},
        "own": own,
        "new": {**own, str(size): token("[NEW]")},
        "new-alone": {str(size): token("[NEW]")},
        "two": {str(size + 1): token("[OLD]"), str(size): token("[NEW]")},
        "left": {str(size): token("[NEW]", lstrip=True)},
        "right": {str(size): token("[NEW]", rstrip=True)},
        "single-word": {str(size): token("[NEW]", single_word=True)},
        "normalized": {str(size): token("[NEW]", normalized=True, special=False)},
        "ordinary": {str(size): token("[NEW]", special=False)},
        "content-alone": {str(size): {"content": "[NEW]"}},
        "unknown-field": {str(size): {**token("[NEW]"), "color": "red"}},
        "mask-plain": {**own, str(words[mask]): token(mask)},
        "gap": {**own, str(size + 3): token("[NEW]")},
        "collision": {**own, str(words["hello"] if "hello" in words else words["h"]): token("[NEW]")},
        "known-word": {**own, "0": token("hello")},
        "no-content": {str(size): {"lstrip": True}},
        "text": {str(size): "[NEW]"},
        "not-a-number": {"last": token("[NEW]")},
        "negative": {"-1": token("[NEW]")},
        "wrong-flag": {str(size): token("[NEW]", lstrip="yes")},
        "null": None,
        "list": [],
    }.items():
        setting("added_tokens_decoder", value, label)
        if label in ("new-alone", "left", "normalized"):
            setting("added_tokens_decoder", value, f"{label}-split", {CONFIG: {**config, "added_tokens_decoder": value, "split_special_tokens": True}})
            setting("added_tokens_decoder", value, f"{label}-no-tokenizer-json", {TOKENIZER: None, CONFIG: {**config, "added_tokens_decoder": value}})
    for label, value in {
        "new": {"[NEW]": size}, "two": {"[OLD]": size + 1, "[NEW]": size}, "own": {mask: words[mask]}, "gap": {"[NEW]": size + 3}, "collision": {"[NEW]": 5},
        "text": {"[NEW]": str(size)}, "negative": {"[NEW]": -1}, "fraction": {"[NEW]": size + 0.5}, "null": {"[NEW]": None}, "list": ["[NEW]"], "empty": {},
    }.items():  # fmt: skip
        result[f"added_tokens-{label}"] = {ADDED: value}
        result[f"added_tokens-{label}-no-tokenizer-json"] = {ADDED: value, TOKENIZER: None}
        result[f"added_tokens-{label}-none-in-the-file"] = {ADDED: value, TOKENIZER: changed("added_tokens", [])}
    result["added_tokens-special"] = {ADDED: {"[NEW]": size}, CONFIG: {**config, "extra_special_tokens": ["[NEW]"]}}
    result["added_tokens-special-in-map"] = {ADDED: {"[NEW]": size}, MAP: {"additional_special_tokens": ["[NEW]"]}}
    result["added_tokens-and-decoder"] = {ADDED: {"[OLD]": size}, CONFIG: {**config, "added_tokens_decoder": {str(size): token("[NEW]")}}}
    file = changed("added_tokens", [*tokenizer["added_tokens"], {"id": size, **token("[NEW]", lstrip=True)}])
    result["file-new-token"] = {TOKENIZER: file}
    result["file-new-token-decoder-none"] = {TOKENIZER: file, CONFIG: {**config, "added_tokens_decoder": {}}}
    result["file-new-token-decoder-own"] = {TOKENIZER: file, CONFIG: {**config, "added_tokens_decoder": own}}
    result["file-new-token-other-flags"] = {TOKENIZER: file, CONFIG: {**config, "added_tokens_decoder": {str(size): token("[NEW]", rstrip=True)}}}
    result["file-gap"] = {TOKENIZER: changed("added_tokens", [*tokenizer["added_tokens"], {"id": size + 2, **token("[NEW]")}])}

    # Parts of tokenizer.json that the class builds itself.
    for path, values in {
        "normalizer": {"none": None, "lowercase": {"type": "Lowercase"}, "sequence": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]}},
        "pre_tokenizer": {"whitespace": {"type": "WhitespaceSplit"}},
        "post_processor": {"none": None, "reversed": {"type": "BertProcessing", "sep": [mask, words[mask]], "cls": ["a", words["a"]]}},
        "decoder": {"none": None},
    }.items():
        for label, value in values.items():
            result[f"file-{path}-{label}"] = {TOKENIZER: changed(path, value)}
    typed = changed("post_processor.single", [{"SpecialToken": {"id": "<s>", "type_id": 1}}, {"Sequence": {"id": "A", "type_id": 1}}]) if kind == "backend-unigram" else None
    if typed:
        result["file-types"] = {TOKENIZER: typed}
        result["file-types-asked-for"] = {TOKENIZER: typed, CONFIG: {**config, "model_input_names": ["input_ids", "token_type_ids"]}}
    for name, value in {"continuing_subword_prefix": "@@", "max_input_chars_per_word": 3, "unk_token": "hello"}.items() if "WordPiece" in tokenizer["model"]["type"] else []:
        result[f"file-model-{name}"] = {TOKENIZER: changed(f"model.{name}", value)}
    if tokenizer["model"]["type"] == "BPE":
        for name, value in {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "ignore_merges": True, "end_of_word_suffix": "</w>"}.items():
            result[f"file-model-{name}"] = {TOKENIZER: changed(f"model.{name}", value)}
        result["file-merges-as-text"] = {TOKENIZER: changed("model.merges", [" ".join(merge) for merge in tokenizer["model"]["merges"]])}
    if tokenizer["model"]["type"] == "Unigram":
        result["file-unk_id-0"] = {TOKENIZER: changed("model.unk_id", 0)}
        result["file-unk_id-4"] = {TOKENIZER: changed("model.unk_id", 4)}
        result["file-normalizer-with-charsmap"] = {
            TOKENIZER: changed("normalizer", {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, tokenizer["normalizer"]]})
        }

    # The class.
    for name in [
        "BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "DistilBertTokenizerFast", "ElectraTokenizer", "ElectraTokenizerFast", "MPNetTokenizer",
        "MPNetTokenizerFast", "RobertaTokenizer", "RobertaTokenizerFast", "XLMRobertaTokenizer", "XLMRobertaTokenizerFast", "CamembertTokenizer",
        "CamembertTokenizerFast", "PreTrainedTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend", "MobileBertTokenizer", "LongformerTokenizer",
        "BertJapaneseTokenizer", "HerbertTokenizer", "NoSuchTokenizer", "", 7, None,
    ]:  # fmt: skip
        rest = {key: value for key, value in config.items() if key != "tokenizer_class"}
        result[f"class-{name}"] = {CONFIG: {**rest, "tokenizer_class": name}}
        if name is not None:
            result[f"model-class-{name}"] = {CONFIG: rest, MODEL: {**base[MODEL], "tokenizer_class": name}}
    result["class-of-the-tokenizer-before-the-models"] = {MODEL: {**base[MODEL], "tokenizer_class": "NoSuchTokenizer"}}
    result["init_inputs-set"] = {CONFIG: {**config, "init_inputs": ["vocab.txt"]}}
    result["vocab-set"] = {CONFIG: {**config, "vocab": {"[UNK]": 0}}}
    result["fast_tokenizer_files-set"] = {CONFIG: {**config, "fast_tokenizer_files": ["tokenizer.4.0.0.json", TOKENIZER]}, "tokenizer.4.0.0.json": file}
    result["config-wrong"] = {CONFIG: []}
    return result


def bases():
    bert = word_piece(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"], {})
    mpnet = word_piece(["[UNK]", "<s>", "</s>", "<pad>", "<mask>"], {"<mask>": {"lstrip": True}})
    roberta, xlm = byte_level(), unigram(["<s>", "<pad>", "</s>", "<unk>"])
    camembert = unigram(["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"])
    lines = lambda tokenizer: "".join(f"{word}\n" for word in tokenizer["model"]["vocab"])  # noqa: E731
    return {
        "bert": {TOKENIZER: bert, CONFIG: {"tokenizer_class": "BertTokenizer"}, MODEL: {"model_type": "bert"}, "vocab.txt": lines(bert)},
        "bert-by-model": {TOKENIZER: bert, CONFIG: {}, MODEL: {"model_type": "bert"}, "vocab.txt": lines(bert)},
        "distilbert": {TOKENIZER: bert, CONFIG: {"tokenizer_class": "DistilBertTokenizer"}, MODEL: {"model_type": "distilbert"}, "vocab.txt": lines(bert)},
        "electra": {TOKENIZER: bert, CONFIG: {"tokenizer_class": "ElectraTokenizer"}, MODEL: {"model_type": "electra"}, "vocab.txt": lines(bert)},
        "mpnet": {TOKENIZER: mpnet, CONFIG: {"tokenizer_class": "MPNetTokenizer"}, MODEL: {"model_type": "mpnet"}, "vocab.txt": lines(mpnet)},
        "roberta": {
            TOKENIZER: roberta, CONFIG: {"tokenizer_class": "RobertaTokenizer"}, MODEL: {"model_type": "roberta"}, "vocab.json": roberta["model"]["vocab"],
            "merges.txt": "#version: 0.2\n" + "".join(" ".join(merge) + "\n" for merge in roberta["model"]["merges"]),
        },
        "xlm-roberta": {TOKENIZER: xlm, CONFIG: {"tokenizer_class": "XLMRobertaTokenizer"}, MODEL: {"model_type": "xlm-roberta"}},
        "camembert": {TOKENIZER: camembert, CONFIG: {"tokenizer_class": "CamembertTokenizer"}, MODEL: {"model_type": "camembert"}},
        "backend-word-piece": {TOKENIZER: bert, CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast"}, MODEL: {"model_type": "bert"}},
        "backend-byte-level": {TOKENIZER: roberta, CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast"}, MODEL: {"model_type": "roberta"}},
        "backend-unigram": {TOKENIZER: xlm, CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast"}, MODEL: {"model_type": "bert"}},
    }  # fmt: skip


# Directories whose class shares all code with `bert`: the way to the class is what differs.
BRIEF = ["bert-by-model", "distilbert", "electra"]


def write(folder, base, changes):
    for name, content in {**base, **changes}.items():
        if isinstance(content, dict) and "change" in content:
            content = apply(base[TOKENIZER], content)
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / name).write_text(text, encoding="utf-8")


def run(job):
    """What the installed transformers gives for every case: ids and types of each text, or null for a refusal."""
    from transformers import AutoTokenizer

    results = {}
    for kind, part in job.items():
        results[kind] = {}
        for name, files in part["cases"].items():
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder), part["files"], files)
                try:
                    tokenizer = AutoTokenizer.from_pretrained(folder)
                except BaseException as error:
                    if isinstance(error, KeyboardInterrupt):
                        raise
                    results[kind][name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0].replace(folder, "DIR")[:160]}
                    continue
                texts = []
                for text in TEXTS:
                    try:
                        encoding = tokenizer(text, truncation=True)
                        ids = encoding["input_ids"]
                        texts.append({"ids": ids, "types": encoding.get("token_type_ids", [0] * len(ids))})
                    except BaseException as error:
                        texts.append({"error": f"{type(error).__name__}: {error}".splitlines()[0][:120]})
                results[kind][name] = {"texts": texts}
    return results


def compact(result):
    """Ids of every text (null: an error for this text), and types where one is not 0; or null for a refusal."""
    if "error" in result:
        return None
    ids = [text.get("ids") for text in result["texts"]]
    types = [text.get("types") for text in result["texts"]]
    return {"ids": ids, **({"types": types} if any(any(row or []) for row in types) else {})}


def main():
    import tokenizers
    import transformers

    assert (transformers.__version__, tokenizers.__version__) == ("5.23.0", "0.23.3"), (transformers.__version__, tokenizers.__version__)
    job = {}
    for kind, base in bases().items():
        job[kind] = {"files": base, "cases": cases(kind, base)}
        if kind in BRIEF:
            names = ["as-saved", "no-config", "no-tokenizer-json", "added_tokens_decoder-new", "added_tokens-new"]
            names += ["do_lower_case-false", "strip_accents-false", "tokenize_chinese_chars-false"]
            job[kind]["cases"] = {name: files for name, files in job[kind]["cases"].items() if name in names or name.startswith("class-")}
    fifth = run(job)
    answer = subprocess.run(
        [os.environ["TRANSFORMERS4_PYTHON"], __file__, "--ids"], input=json.dumps(job), capture_output=True, text=True, check=True,
    )  # fmt: skip
    fourth = json.loads(answer.stdout.splitlines()[-1])
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    embed(job)
    for kind, part in job.items():
        recorded, results = [], []

        def number(result):
            """The index of a result in `results`; null for a refusal."""
            if result is None:
                return None
            if result not in results:
                results.append(result)
            return results.index(result)

        for name, files in part["cases"].items():
            five, four = compact(fifth[kind][name]), compact(fourth[kind][name])
            entry = {"name": name, "files": files, "transformers5": number(five)}
            if four != five:
                entry["transformers4"] = number(four)
            recorded.append(entry)
        lines = ",\n".join(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in recorded)
        head = json.dumps({"transformers": ["5.23.0", "4.57.6"], "texts": TEXTS, "files": part["files"], "results": results}, ensure_ascii=False, separators=(",", ":"))
        (OUT / f"{kind}.json").write_text(f"{head[:-1]},\"cases\":[\n{lines}\n]}}\n", encoding="utf-8")


# ---- embeddings/: two tiny random models, which directories with other settings are run with ------------------------------------

EMBEDDED = {
    "bert": [
        "as-saved", "do_lower_case-false", "strip_accents-false", "tokenize_chinese_chars-false", "added_tokens_decoder-new",
        "added_tokens_decoder-new-alone-no-tokenizer-json", "added_tokens-new", "added_tokens-new-no-tokenizer-json", "truncation-of-the-file-and-limit",
    ],
    "bert-by-model": ["do_lower_case-false", "strip_accents-false", "tokenize_chinese_chars-false", "added_tokens-new"],
    "roberta": ["as-saved", "add_prefix_space-true", "add_prefix_space-silent-file-true", "added_tokens-new", "no-tokenizer-json", "truncation_side-left"],
}  # fmt: skip


def embed(job):
    """Writes the models and what sentence-transformers gives, one text at a time."""
    import sentence_transformers
    import torch
    import transformers
    from safetensors.torch import save_file

    assert sentence_transformers.__version__ == "6.2.0", sentence_transformers.__version__
    torch.set_num_threads(1)
    expected = {}
    for kind, names in EMBEDDED.items():
        family = "roberta" if kind == "roberta" else "bert"
        folder = OUT / "embeddings" / family
        if not (folder / "config.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            size = len(job[kind]["files"][TOKENIZER]["model"]["vocab"]) + 2
            common = {
                "vocab_size": size, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 66,
                "initializer_range": 0.5,
            }  # fmt: skip
            config, model = {
                "bert": (transformers.BertConfig, transformers.BertModel),
                "roberta": (transformers.RobertaConfig, transformers.RobertaModel),
            }[family]
            torch.manual_seed(7)
            config = config(**common, **({"type_vocab_size": 1} if family == "roberta" else {}))
            model(config, add_pooling_layer=False).save_pretrained(folder)
        for name in names:
            with tempfile.TemporaryDirectory() as directory:
                directory = Path(directory)
                write(directory, job[kind]["files"], job[kind]["cases"][name])
                for file in ["config.json", "model.safetensors"]:
                    (directory / file).write_bytes((folder / file).read_bytes())
                model = sentence_transformers.SentenceTransformer(str(directory), device="cpu")
                rows = [torch.from_numpy(model.encode(text)) for text in TEXTS]
                expected[f"{kind}/{name}"] = torch.stack(rows)
    save_file(expected, OUT / "embeddings" / "expected.safetensors")


if __name__ == "__main__":
    if sys.argv[1:] == ["--ids"]:
        import transformers

        assert transformers.__version__ == "4.57.6", transformers.__version__
        print(json.dumps(run(json.load(sys.stdin))))
    else:
        main()
