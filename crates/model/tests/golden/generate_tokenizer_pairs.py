"""Writes `tokenizer_pairs/`: ids, types and offsets that transformers gives for single texts, pairs and windows, class by class; and the ids of
settings of classes that `tokenizer_settings/` does not have.

    python generate_tokenizer_pairs.py

Pinned: Python 3.11, transformers 5.23.0, tokenizers 0.23.3, on a CPU; torch is not needed. The tiny vocabularies are those of
generate_tokenizer_settings.py. README.md beside this file says what the files hold.
"""

import json
import shutil
import tempfile
from pathlib import Path

from generate_tokenizer_settings import CONFIG, MODEL, TEXTS, TOKENIZER, added, bases, byte_level, changed, compact, run, special, token, unigram, word_piece, write

HERE = Path(__file__).resolve().parent
OUT = HERE / "tokenizer_pairs"

PAIRS = [
    ("hello world", "world hello"),
    ("Hello WORLD cafe", ""),
    ("", "hello"),
    ("", ""),
    ("CAFÉ café 中文", "e\u0301 ☃ 😀 hello"),
    ("hello [MASK] world [SEP]", "x <mask> hello </s> y"),
    ("hello world cafe a b c hello world", "new hello  world\tnew hello world mask new hello"),
    ("a", "world hello world hello world hello world hello world hello world hello world hello"),
    (" hello,\nworld ", "  ﬁ  hello'll "),
]

# How a pair is cut: strategy, most tokens.
CUTS = [("longest_first", None), ("longest_first", 12), ("longest_first", 7), ("only_first", 16), ("only_second", 16)]

# A question with its context in windows: most tokens, tokens shared.
WINDOWS = [(12, 2), (14, 0), (20, 5)]


def qwen_like():
    """A byte-level tokenizer.json of Qwen's, GPT-2's or DeBERTa's kind: without RoBERTa's tokens, and with the last step that those files have."""
    tokenizer = byte_level()
    vocabulary = {token: index for index, token in enumerate([token for token in tokenizer["model"]["vocab"] if not token.startswith("<")])}
    vocabulary["<|endoftext|>"] = len(vocabulary)
    tokenizer["model"]["vocab"] = vocabulary
    tokenizer["added_tokens"] = special(vocabulary, ["<|endoftext|>"])
    tokenizer["post_processor"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return tokenizer


def deberta():
    tokenizer = byte_level()
    names = ["[CLS]", "[PAD]", "[SEP]", "[UNK]"]
    rest = [token for token in tokenizer["model"]["vocab"] if token not in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")]
    vocabulary = {token: index for index, token in enumerate([*names, *rest, "[MASK]"])}
    tokenizer["model"]["vocab"] = vocabulary
    tokenizer["added_tokens"] = special(vocabulary, [*names, "[MASK]"], **{"[MASK]": {"lstrip": True}})
    tokenizer["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 0]}
    return tokenizer


def with_names(first, unknown):
    """A Unigram tokenizer.json with BERT's special tokens."""
    others = ["<s>", "</s>", "<unk>"]
    tokenizer = unigram(others)
    vocabulary = [[piece, 0.0] for piece in first]
    vocabulary += [["[MASK]", 0.0] if piece == "<mask>" else [piece, score] for piece, score in tokenizer["model"]["vocab"][len(others) :]]
    ids = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    tokenizer["model"].update(vocab=vocabulary, unk_id=ids[unknown])
    tokenizer["added_tokens"] = special(ids, [*first, "[MASK]"])
    sequence, around = lambda id, type: {"Sequence": {"id": id, "type_id": type}}, lambda id, type: {"SpecialToken": {"id": id, "type_id": type}}  # noqa: E731
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [around("[CLS]", 0), sequence("A", 0), around("[SEP]", 0)],
        "pair": [around("[CLS]", 0), sequence("A", 0), around("[SEP]", 0), sequence("B", 1), around("[SEP]", 1)],
        "special_tokens": {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")},
    }
    return tokenizer


def merges(tokenizer):
    return "#version: 0.2\n" + "".join(" ".join(merge) + "\n" for merge in tokenizer["model"]["merges"])


def new_bases():
    """Directories of the classes that generate_tokenizer_settings.py does not have."""
    albert, v2 = with_names(["<pad>", "<unk>", "[CLS]", "[SEP]"], "<unk>"), with_names(["[PAD]", "[CLS]", "[SEP]", "[UNK]"], "[UNK]")
    byte, old = qwen_like(), deberta()
    files = lambda tokenizer: {"vocab.json": tokenizer["model"]["vocab"], "merges.txt": merges(tokenizer)}  # noqa: E731
    return {
        "albert": {TOKENIZER: albert, CONFIG: {"tokenizer_class": "AlbertTokenizer"}, MODEL: {"model_type": "albert"}},
        "deberta-v2": {TOKENIZER: v2, CONFIG: {"tokenizer_class": "DebertaV2Tokenizer"}, MODEL: {"model_type": "deberta-v2"}},
        "deberta": {TOKENIZER: old, CONFIG: {"tokenizer_class": "DebertaTokenizer"}, MODEL: {"model_type": "deberta"}, **files(old)},
        "qwen2": {TOKENIZER: byte, CONFIG: {"tokenizer_class": "Qwen2Tokenizer"}, MODEL: {"model_type": "qwen2"}, **files(byte)},
        "qwen3": {TOKENIZER: byte, CONFIG: {"tokenizer_class": "Qwen2Tokenizer"}, MODEL: {"model_type": "qwen3"}, **files(byte)},
        "gpt2": {TOKENIZER: byte, CONFIG: {"tokenizer_class": "GPT2Tokenizer"}, MODEL: {"model_type": "gpt2"}, **files(byte)},
        "llama": {TOKENIZER: byte_pairs(["<unk>", "<s>", "</s>"]), CONFIG: {"tokenizer_class": "LlamaTokenizer"}, MODEL: {"model_type": "llama"}},
        "gemma": {TOKENIZER: byte_pairs(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]), CONFIG: {"tokenizer_class": "GemmaTokenizer"}, MODEL: {"model_type": "gemma3_text"}},
        "nomic": {TOKENIZER: word_piece(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"], {}), CONFIG: {}, MODEL: {"model_type": "nomic_bert"}},
        "gte": {TOKENIZER: unigram(["<s>", "<pad>", "</s>", "<unk>"]), CONFIG: {"tokenizer_class": "XLMRobertaTokenizer"}, MODEL: {"model_type": "new"}},
    }  # fmt: skip


def byte_pairs(first):
    """A tokenizer.json of Llama's or Gemma's kind."""
    words = ["▁", *"helowrdcafnmskxyb.[]<>/,'", "he", "ll", "hell", "hello", "▁hello", "wo", "rl", "worl", "world", "▁world", "▁▁"]
    bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {token: index for index, token in enumerate([*first, *bytes, *words])}
    pairs = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "hello"), ("w", "o"), ("r", "l"), ("wo", "rl"), ("worl", "d"), ("▁", "world"), ("▁", "▁")]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special(vocabulary, first), "normalizer": None, "pre_tokenizer": None,
        "post_processor": None, "decoder": None,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
            "byte_fallback": True, "ignore_merges": False, "vocab": vocabulary, "merges": [list(pair) for pair in pairs],
        },
    }  # fmt: skip


def settings(kind, base):
    """Settings of one of the new classes, by name."""
    tokenizer, config = base[TOKENIZER], base[CONFIG]
    result = {"as-saved": {}, "no-config": {CONFIG: None}}
    if kind in ("nomic", "gte"):
        return {**result, "class-PreTrainedTokenizerFast": {CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast"}}}
    result["no-tokenizer-json"] = {TOKENIZER: None}
    flags = ["do_lower_case", "keep_accents", "split_by_punct", "add_prefix_space", "add_bos_token", "add_eos_token", "trim_offsets", "legacy", "strip_accents"]
    for name in flags:
        for label, value in {"true": True, "false": False, "null": None}.items():
            result[f"{name}-{label}"] = {CONFIG: {**config, name: value}}
            result[f"map-{name}-{label}"] = {CONFIG: config, "special_tokens_map.json": {name: value}}
    for label, value in {"0": 0, "2": 2, "text": "1", "null": None, "large": 10000}.items():
        result[f"unk_id-{label}"] = {CONFIG: {**config, "unk_id": value}}
        result[f"unk_id-{label}-token"] = {CONFIG: {**config, "unk_id": value, "unk_token": "hello"}}
    for role in ["unk_token", "cls_token", "sep_token", "pad_token", "mask_token", "bos_token", "eos_token"]:
        for label, value in {"word": "hello", "new": "[NEW]", "object": added("[NEW]", lstrip=True), "null": None, "blank": "a b"}.items():
            result[f"{role}-{label}"] = {CONFIG: {**config, role: value}}
            result[f"{role}-{label}-no-tokenizer-json"] = {CONFIG: {**config, role: value}, TOKENIZER: None}
        result[f"{role}-new-no-step"] = {CONFIG: {**config, role: "[NEW]"}, TOKENIZER: changed("post_processor", None)}
    around = {"add_bos_token": True, "add_eos_token": True, "bos_token": "h", "eos_token": "e"}
    result["around"] = {CONFIG: {**config, **around}}
    result["around-by-map"] = {"special_tokens_map.json": around}
    result["around-no-tokenizer-json"] = {CONFIG: {**config, **around}, TOKENIZER: None}
    for path, values in {
        "normalizer": {"none": None, "lowercase": {"type": "Lowercase"}},
        "pre_tokenizer": {"whitespace": {"type": "WhitespaceSplit"}},
        "post_processor": {"none": None, "reversed": {"type": "BertProcessing", "sep": ["h", 4], "cls": ["a", 5]}},
    }.items():
        for label, value in values.items():
            result[f"file-{path}-{label}"] = {TOKENIZER: changed(path, value)}
    result["model_input_names-types"] = {CONFIG: {**config, "model_input_names": ["input_ids", "token_type_ids"]}}
    result["model_max_length-5"] = {CONFIG: {**config, "model_max_length": 5}}
    result["added_tokens_decoder-new"] = {CONFIG: {**config, "added_tokens_decoder": {str(len(tokenizer["model"]["vocab"])): token("[NEW]")}}}
    for name in ["BertTokenizer", "Qwen2TokenizerFast", "GPT2Tokenizer", "PreTrainedTokenizerFast", "DebertaV2TokenizerFast", "AlbertTokenizerFast", "XLMRobertaTokenizer"]:
        result[f"class-{name}"] = {CONFIG: {**config, "tokenizer_class": name}}
    if "vocab.json" not in base:
        # generate_sentencepiece.py has these classes without tokenizer.json.
        result = {name: files for name, files in result.items() if "no-tokenizer-json" not in name}
    return result


def aligned(encoding, window=0):
    """One encoding; offsets count characters."""
    found = encoding.encodings[window]
    return {
        "ids": found.ids, "offsets": [value for pair in found.offsets for value in pair], "texts": found.sequence_ids, "words": found.word_ids,
        "special": found.special_tokens_mask,
    }  # fmt: skip


def typed(result, types):
    return {**result, **({"types": types} if any(types) else {})}


def tokenized(call, several=False):
    """None for a refusal."""
    try:
        encoding = call()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return None
    count = len(encoding.encodings)
    types = encoding.get("token_type_ids")
    if several:
        return [typed(aligned(encoding, index), types[index] if types else []) for index in range(count)]
    assert count == 1
    return typed(aligned(encoding), (types[0] if types else []))


def alignments():
    """For each kind its files, and what its tokenizer gives for single texts, pairs and windows, and for tokens back to text."""
    from transformers import AutoTokenizer

    kinds = {**{kind: base for kind, base in bases().items() if kind not in ("electra", "bert-by-model")}, **new_bases()}
    kinds["bert-types-not-asked"] = {**kinds["bert"], CONFIG: {**kinds["bert"][CONFIG], "model_input_names": ["input_ids"]}}
    kinds["bert-left"] = {**kinds["bert"], CONFIG: {**kinds["bert"][CONFIG], "truncation_side": "left"}}
    kinds["roberta-prefix-space"] = {**kinds["roberta"], CONFIG: {**kinds["roberta"][CONFIG], "add_prefix_space": True}}
    kinds["roberta-untrimmed"] = {**kinds["roberta"], CONFIG: {**kinds["roberta"][CONFIG], "trim_offsets": False}}
    kinds["llama-around"] = {**kinds["llama"], "special_tokens_map.json": {"add_bos_token": True, "add_eos_token": True}}
    kinds["qwen3-around"] = {**kinds["qwen3"], "special_tokens_map.json": {"add_eos_token": True}}
    kinds["backend-pair"] = {**kinds["albert"], CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "token_type_ids"]}, MODEL: {"model_type": "modernbert"}}
    kinds["backend-no-step"] = {**kinds["backend-pair"], TOKENIZER: {**kinds["albert"][TOKENIZER], "post_processor": None}}
    kinds["backend-no-pair"] = {**kinds["backend-pair"], TOKENIZER: {**kinds["albert"][TOKENIZER], "post_processor": {**kinds["albert"][TOKENIZER]["post_processor"], "pair": []}}}
    kinds["bert-cleans-up"] = {**kinds["bert"], CONFIG: {**kinds["bert"][CONFIG], "clean_up_tokenization_spaces": True}}
    result = {}
    for kind, files in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), files, {})
            tokenizer = AutoTokenizer.from_pretrained(folder)
        options = {"return_offsets_mapping": True}
        of_pairs = []
        for first, second in PAIRS:
            for strategy, most in CUTS:
                cut = {"truncation": strategy, "max_length": most} if most else {"truncation": False}
                of_pairs.append(tokenized(lambda: tokenizer([first], [second], **cut, **options)))
        of_windows = []
        for first, second in PAIRS:
            for most, stride in WINDOWS:
                cut = {"truncation": "only_second", "max_length": most, "stride": stride, "return_overflowing_tokens": True}
                of_windows.append(tokenized(lambda: tokenizer([first], [second], **cut, **options), several=True))
        singles = [tokenized(lambda: tokenizer([text], **options)) for text in [first for first, _ in PAIRS] + [second for _, second in PAIRS]]
        ids = [single["ids"] if single else [] for single in singles]
        result[kind] = {
            "files": files,
            "singles": singles,
            "pairs": of_pairs,
            "windows": of_windows,
            "decoded": [[tokenizer.decode(list), tokenizer.decode(list, skip_special_tokens=True), tokenizer.convert_tokens_to_string(tokenizer.convert_ids_to_tokens(list))] for list in ids],
            "roles": [tokenizer.mask_token_id, tokenizer.cls_token_id, tokenizer.unk_token_id],
        }
    return result


def write_compact(file, head, key, entries):
    lines = ",\n".join(entries)
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":"))
    file.write_text(f'{text[:-1]},"{key}":[\n{lines}\n]}}\n', encoding="utf-8")


def main():
    import tokenizers
    import transformers

    assert (transformers.__version__, tokenizers.__version__) == ("5.23.0", "0.23.3"), (transformers.__version__, tokenizers.__version__)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    dumps = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))  # noqa: E731
    # Lists that many cases share stand once.
    lists, kinds = {}, []

    def index(value):
        return lists.setdefault(dumps(value), len(lists))

    def shared(found):
        if found is None:
            return None
        if isinstance(found, list):
            return [shared(one) for one in found]
        return index([found["ids"], found.get("types"), found["offsets"], found["texts"], found["words"], found["special"]])

    for kind, found in alignments().items():
        files = {name: index(content) for name, content in found.pop("files").items()}
        entry = {"kind": kind, "files": files, **{key: [shared(one) for one in found[key]] for key in ("singles", "pairs", "windows")}, "decoded": found["decoded"], "roles": found["roles"]}
        kinds.append(dumps(entry))
    head = {"transformers": "5.23.0", "pairs": PAIRS, "cuts": CUTS, "windows": WINDOWS}
    text = dumps(head)
    listed = ",\n".join(lists)
    (OUT / "aligned.json").write_text(f'{text[:-1]},"lists":[\n{listed}\n],"kinds":[\n' + ",\n".join(kinds) + "\n]}\n", encoding="utf-8")
    job = {kind: {"files": base, "cases": settings(kind, base)} for kind, base in new_bases().items()}
    found = run(job)
    for kind, part in job.items():
        results, entries = [], []
        for name, files in part["cases"].items():
            result = compact(found[kind][name])
            if result is not None and result not in results:
                results.append(result)
            entries.append(dumps({"name": name, "files": files, "transformers5": None if result is None else results.index(result)}))
        write_compact(OUT / f"{kind}.json", {"transformers": ["5.23.0"], "texts": TEXTS, "files": part["files"], "results": results}, "cases", entries)
    for path in sorted(OUT.iterdir()):
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
