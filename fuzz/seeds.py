#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets (seeds/TARGET/*), from the golden files of the crates and by hand.

Run from anywhere, with a Python that has pyarrow (interop/requirements.txt pins it) and a built program:

    python3 fuzz/seeds.py target/debug/fewbit

Files that are there are overwritten, others stay: a seed that reproduces a fault is kept beside the ones made here.
"""

import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
CRATES = ROOT / "crates"
SEEDS = ROOT / "fuzz" / "seeds"
CHECKPOINT_GOLDEN = CRATES / "checkpoint" / "tests" / "golden"
MODEL_GOLDEN = CRATES / "model" / "tests" / "golden"
DATA_GOLDEN = CRATES / "data" / "tests" / "golden"


def seed(target, name, content):
    if isinstance(content, str):
        content = content.encode()
    folder = SEEDS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def safetensors(header, data=b""):
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def safetensors_header():
    target = "safetensors_header"
    seed(target, "empty", safetensors({}))
    seed(target, "one-tensor", safetensors({"a": entry("F32", [2], 0, 8)}, bytes(8)))
    seed(target, "metadata", safetensors({"__metadata__": {"format": "pt"}, "w": entry("I8", [3, 1], 0, 3)}, b"abc"))
    seed(target, "no-elements", safetensors({"a": entry("F16", [0, 4], 0, 0), "b": entry("U8", [], 0, 1)}, b"x"))
    seed(target, "out-of-order", safetensors({"b": entry("BF16", [2], 4, 8), "a": entry("U16", [2], 0, 4)}, bytes(8)))
    names = ["BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "F64", "I64", "U64"]
    sizes = [1] * 5 + [2] * 4 + [4] * 3 + [8] * 3
    header, at = {}, 0
    for name, size in zip(names, sizes):
        header[name] = entry(name, [1], at, at + size)
        at += size
    seed(target, "every-dtype", safetensors(header, bytes(range(at))))
    seed(target, "small-dtypes", safetensors({"f4": entry("F4", [4], 0, 2), "e8": entry("F8_E8M0", [1], 2, 3)}, bytes(3)))
    seed(target, "git-lfs-pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    # A header as a trainer writes it, padded with spaces, without its data but for the first tensor.
    golden = (CHECKPOINT_GOLDEN / "bitsandbytes-4bit" / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", golden[:8])[0]
    header = json.loads(golden[8 : 8 + length])
    name, first = min(((n, e) for n, e in header.items() if n != "__metadata__"), key=lambda item: item[1]["data_offsets"][0])
    end = first["data_offsets"][1]
    padded = json.dumps({"__metadata__": {"format": "pt"}, name: first}).encode()
    padded += b" " * (-len(padded) % 8)
    seed(target, "padded", struct.pack("<Q", len(padded)) + padded + golden[8 + length :][:end])


def pytorch_bin():
    target = "pytorch_bin"
    goldens = CHECKPOINT_GOLDEN / "pytorch"
    for name in ["archive", "stream", "stream-parts", "new-types", "values-beside", "nested"]:
        seed(target, name, (goldens / name / "pytorch_model.bin").read_bytes())
    seed(target, "shard", (goldens / "sharded" / "pytorch_model-00002-of-00002.bin").read_bytes())
    # A state dict that calls os.system, in the older form.
    magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03."
    system = b"\x80\x02}X\x0d\0\0\0little_endian\x88s."
    seed(target, "os-system", magic + system + b"\x80\x02cos\nsystem\nX\x0b\0\0\0touch owned\x85R.")


def gguf():
    target = "gguf"

    def text(value):
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def file(entries=(), tensors=(), data=b"", version=3):
        header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries))
        for key, kind, value in entries:
            header += text(key) + struct.pack("<I", kind) + value
        for name, dimensions, kind, offset in tensors:
            header += text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset)
        return header + bytes(-len(header) % 32) + data

    seed(target, "empty", file())
    seed(target, "version-2", file([("a", 4, struct.pack("<I", 7))], version=2))
    numbers = [(0, "B"), (1, "b"), (2, "H"), (3, "h"), (4, "I"), (5, "i"), (6, "f"), (7, "?"), (10, "Q"), (11, "q"), (12, "d")]
    entries = [(f"n{kind}", kind, struct.pack(f"<{code}", 1)) for kind, code in numbers]
    entries += [(f"a{kind}", 9, struct.pack(f"<IQ2{code}", kind, 2, 0, 1)) for kind, code in numbers]
    entries += [("s", 8, text("text")), ("t", 9, struct.pack("<IQ", 8, 2) + text("▁a") + text(""))]
    seed(target, "every-value", file(entries))
    seed(target, "alignment", file([("general.alignment", 4, struct.pack("<I", 64))], [("x", [2], 0, 0), ("y", [1], 0, 64)], bytes(100)))
    for name, kind, elements, size in [
        ("q4_0", 2, 32, 18),
        ("q4_1", 3, 32, 20),
        ("q5_0", 6, 32, 22),
        ("q5_1", 7, 32, 24),
        ("q8_0", 8, 32, 34),
        ("q4_k", 12, 256, 144),
        ("q5_k", 13, 256, 176),
        ("q6_k", 14, 256, 210),
        ("f16", 1, 32, 64),
        ("bf16", 30, 32, 64),
    ]:
        seed(target, name, file([], [("w", [elements, 2], kind, 0)], bytes(range(7, 7 + 2 * size % 200)) + bytes(2 * size)))
    seed(target, "golden", (CHECKPOINT_GOLDEN / "gguf" / "types.gguf").read_bytes())
    seed(target, "no-elements", file([], [("e", [32, 0], 8, 0), ("s", [], 0, 0)], bytes(4)))


def quantization_config():
    target = "quantization_config"
    goldens = [*CHECKPOINT_GOLDEN.glob("*/config.json"), *MODEL_GOLDEN.glob("written_by_others/*/config.json")]
    seen = set()
    for path in sorted(goldens):
        config = json.loads(path.read_text())
        config = {key: config[key] for key in ["quantization_config", "compression_config"] if key in config}
        text = json.dumps(config)
        if config and text not in seen:
            seen.add(text)
            seed(target, path.parent.name, text)
    seed(target, "none", '{"quantization_config": null}')
    seed(target, "first-release", '{"quantization_config": {"load_in_8bit": true, "llm_int8_skip_modules": ["lm_head"]}}')
    groups = {
        "dynamic": {
            "format": "int-quantized",
            "targets": ["re:.*self\\.(query|key)$", "Embedding"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"},
            "input_activations": {"num_bits": 8, "symmetric": False, "strategy": "token", "dynamic": True},
        },
        "torch": {
            "format": "int-quantized",
            "targets": ["encoder.layer.0.attention.self.key"],
            "weights": {"num_bits": 8, "strategy": "tensor"},
            "input_activations": {
                "num_bits": 8,
                "symmetric": False,
                "strategy": "tensor",
                "dynamic": True,
                "observer_kwargs": {"reduce_range": True},
            },
        },
        "packed": {
            "format": "pack-quantized",
            "targets": ["re:encoder\\.layer\\.0\\.intermediate"],
            "weights": {"num_bits": 4, "strategy": "group", "group_size": 8, "actorder": "weight"},
        },
    }
    mixed = {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision",
        "quantization_status": "compressed",
        "ignore": ["re:.*pooler.*", "lm_head"],
        "config_groups": groups,
    }
    seed(target, "mixed", json.dumps({"quantization_config": mixed}))
    # Spellings beside those of the golden files, and what is refused.
    gptq = {"quant_method": "gptq", "bits": 4, "group_size": 8}
    seed(target, "gptq-symmetric", json.dumps({"quantization_config": {**gptq, "sym": True, "format": "GPTQ", "desc_act": False}}))
    seed(target, "gptq-dynamic", json.dumps({"quantization_config": {**gptq, "dynamic": {"-:.*pooler.*": {}, "+:.*query$": {"bits": 8}}, "pack_dtype": "int32"}}))
    seed(target, "gptq-marlin", json.dumps({"quantization_config": {**gptq, "is_marlin_format": True}}))
    seed(target, "awq-old-names", json.dumps({"quantization_config": {"quant_method": "awq", "w_bit": 4, "q_group_size": 8, "zero_point": True, "version": "GEMM"}}))
    seed(target, "awq-gemv", json.dumps({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 8, "version": "gemv"}}))
    floats = {"num_bits": 8, "type": "float", "strategy": "channel"}
    small = {"num_bits": 4, "type": "float"}
    group = {
        "fp8": {"format": "float-quantized", "targets": ["re:.*layer\\.8\\."], "weights": floats, "input_activations": {**floats, "strategy": "tensor"}},
        "nvfp4": {"format": "nvfp4-pack-quantized", "targets": ["re:.*layer\\.9\\."], "weights": {**small, "strategy": "tensor_group", "group_size": 16}},
        "mxfp4": {"format": "mxfp4-pack-quantized", "targets": ["re:.*layer\\.10\\."], "weights": {**small, "strategy": "group", "group_size": 32}},
    }
    seed(target, "small-floats", json.dumps({"quantization_config": {"quant_method": "compressed-tensors", "config_groups": group}}))


def quant_state():
    target = "quant_state"
    plain = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [4, 32]}
    nested = {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.4375}
    seed(target, "nf4", json.dumps(plain))
    seed(target, "fp4-float16", json.dumps({**plain, "quant_type": "fp4", "dtype": "float16", "blocksize": 32}))
    seed(target, "nested", json.dumps({**plain, **nested}))
    seed(target, "nested-padded", json.dumps({**plain, **nested, "dtype": "bfloat16", "blocksize": 4096}) + " " * 17)
    seed(target, "odd", json.dumps({**plain, "shape": [3, 5], "blocksize": 7}))
    seed(target, "nothing", json.dumps({**plain, "shape": [0, 5]}))


def tokenizer_files():
    target = "tokenizer_files"

    def files(*contents):
        return b"\0".join(content.encode() if isinstance(content, str) else content for content in contents)

    def compact(value):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "quick", "fox", "##es", "word", "##1", "##2", ",", "中", "naive", "n", "##a"]
    vocab = "\n".join(words) + "\n"
    seed(target, "vocab-only", files("", vocab))
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 16, "strip_accents": None}
    tokens = {"unk_token": "[UNK]", "mask_token": {"content": "[MASK]", "lstrip": True, "rstrip": False}}
    seed(target, "vocab", files("", vocab, compact(config), compact(tokens), compact({"[MASK]": 4})))
    bert = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 128, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [
            {"id": id, "content": words[id], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
            for id in range(5)
        ],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]},
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: id for id, word in enumerate(words)},
        },
    }
    seed(target, "word-piece", files(compact(bert), "", compact(config)))
    left = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "truncation_side": "left", "model_max_length": 1e30}
    seed(target, "word-piece-left", files(compact({**bert, "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}}), "", compact(left)))
    byte_level = {
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": "<s>", "single_word": False, "lstrip": True, "rstrip": False, "normalized": True, "special": True}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0], "trim_offsets": True, "add_prefix_space": False},
        "decoder": {"type": "ByteLevel"},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {"<s>": 0, "</s>": 1, "<unk>": 2, "t": 3, "h": 4, "e": 5, "th": 6, "the": 7, "Ġ": 8, "w": 9, "o": 10, "r": 11, "d": 12, "or": 13},
            "merges": [["t", "h"], ["th", "e"], ["o", "r"]],
        },
    }
    seed(target, "byte-level-bpe", files(compact(byte_level)))
    unigram = {
        "version": "1.0",
        "added_tokens": [{"id": 3, "content": "<mask>", "single_word": True, "lstrip": False, "rstrip": True, "normalized": False, "special": True}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Strip", "strip_left": False, "strip_right": True}, {"type": "Prepend", "prepend": "▁"}]},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": None,
        "model": {"type": "Unigram", "unk_id": 2, "byte_fallback": False, "vocab": [["<s>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["▁the", -3.5], ["▁", -2.0], ["w", -4.0], ["o", -4.1]]},
    }
    seed(target, "unigram", files(compact(unigram)))
    word_level = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\w+(?=\\W)|."}, "behavior": "Isolated", "invert": False}, {"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Removed"}]},
        "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "the": 1, "fox": 2}},
    }
    seed(target, "word-level", files(compact(word_level)))
    for name, model in {"XLMRobertaTokenizer": "rules", "CamembertTokenizer": "symbols"}.items():
        pieces = (MODEL_GOLDEN / "sentencepiece" / f"{model}.model").read_bytes()
        seed(target, f"sentencepiece-{model}", files("", "", compact({"tokenizer_class": name}), "", "", pieces))
    for name, model in {"LlamaTokenizer": "bpe-llama", "GemmaTokenizer": "bpe-gemma", "PreTrainedTokenizerFast": "bpe-names"}.items():
        pieces = (MODEL_GOLDEN / "sentencepiece" / f"{model}.model").read_bytes()
        config = {"tokenizer_class": name, "add_bos_token": True, "add_eos_token": True}
        seed(target, f"sentencepiece-{model}", files("", "", compact(config), "", "", pieces))
    # A table that says that it has 4 GiB of entries, for which the tokenizers crate took memory.
    table = b"\x0a\x03\x0a\x01a\x1a\x0a\x12\x08\xf0\xff\xff\xffabcd"
    seed(target, "sentencepiece-table-of-4-gib", files("", "", compact({"tokenizer_class": "CamembertTokenizer"}), "", "", table))


def recipe():
    target = "recipe"
    seed(target, "dynamic.toml", 'version = 1\nmethod = "dynamic"\nquantize_embeddings = true\nskip = ["*.output.dense", "encoder.layer.{0,1}.*"]\n')
    seed(target, "torch.toml", 'version = 1\nmethod = "dynamic"\nactivations = "per-tensor"\nweight_scales = "per-tensor"\nreduce_range = true\n')
    seed(target, "nf4.toml", 'version = 1\nmethod = "nf4"\nblock_size = 128\ndouble_quantization = true\n')
    seed(target, "fp4.json", '{"version":1,"method":"fp4","block_size":32,"skip":["*.query"]}')
    seed(target, "weight-only.toml", 'version = 1\nmethod = "weight-only"\n')
    seed(target, "mixed.toml", 'version = 1\nmethod = "dynamic"\nskip = ["*.query"]\nweight_only = ["*.intermediate.dense", "encoder.layer.1.output.dense"]\n')
    seed(target, "bf16.json", '{"version": 1, "method": "bf16"}')
    static = {
        "version": 1,
        "method": "static",
        "reduce_range": True,
        "weight_scales": "per-tensor",
        "static_inputs": {
            "encoder.layer.0.attention.self.query": {"scale": 0.0234375, "zero_point": -5},
            "encoder.layer.0.output.dense": {"scale": 1.5e-3, "zero_point": 63},
        },
    }
    seed(target, "static.json", json.dumps(static))
    seed(
        target,
        "static.toml",
        'version = 1\nmethod = "static"\n[static_inputs."encoder.layer.0.intermediate.dense"]\nscale = 0.0125\nzero_point = -128\n'
        "[static_inputs.'encoder.layer.1.output.dense']\nscale = 1e-2\nzero_point = 127\n",
    )


def statistics(fewbit):
    target = "statistics"
    observers = ["min-max", "moving-average", "histogram", "percentile", "mse", "entropy"]
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.txt"
        texts.write_text("The fox jumps.\nA word.\n")
        for observer in observers:
            out = Path(folder) / f"{observer}.json"
            model = MODEL_GOLDEN / "pooling" / "mean-normalize"
            subprocess.run(
                [fewbit, "calibrate", model, "--calibration", texts, "--samples", "2", "--observer", observer, "--stats", out],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            saved = json.loads(out.read_text())
            # One site is enough.
            saved["sites"] = saved["sites"][:1]
            seed(target, f"{observer}.json", json.dumps(saved, separators=(",", ":")))
            if observer == "min-max":
                run = {"file": "texts.txt", "bytes": 23, "columns": ["text"], "samples": 2, "seed": 0, "batch_size": 1, "digest": "00"}
                seed(target, "partial.json", json.dumps({"run": run, "statistics": saved}, separators=(",", ":")))


def data_rows():
    target = "data_rows"
    lines = (DATA_GOLDEN / "rows.jsonl").read_text().splitlines()
    short = sorted(lines, key=len)[:6]
    seed(target, "golden.jsonl", "\n".join(short) + "\n")
    seed(target, "strings.jsonl", '\ufeff"one"\n"two \\u00e9"\r\n\n{"text":"three","other":[1,2]}\n')
    seed(target, "tokens.jsonl", '{"input_ids":[101,7,102,0],"attention_mask":[1,1,1,0],"token_type_ids":[0,0,1,0]}\n{"input_ids":[5]}\n')
    seed(target, "quoted.csv", 'text,label\n"a, ""quoted"" cell",1\n"two\nlines",2\nplain,\n')
    seed(target, "tabs.tsv", "sentence\ttext\nfirst\tsecond, with comma\n\t\n")
    seed(target, "lines.txt", "one\r\ntwo\n\nfour, \u4e2d\n")
    for name in ["brotli", "odd"]:
        seed(target, f"golden-{name}.parquet", (DATA_GOLDEN / f"{name}.parquet").read_bytes())
    columns = {
        "text": pa.array(["one", "zwei", None, "four"]),
        "input_ids": pa.array([[1, 2, 3], [4], [], [5, 6]], pa.list_(pa.int64())),
    }
    masks = {
        "text": pa.array(["a", "b", "a"]),
        "input_ids": pa.array([[1, 2], [3], [4, 5]], pa.list_(pa.int32())),
        "attention_mask": pa.array([[1, 1], None, [0, 1]], pa.list_(pa.uint32())),
    }
    ways = {
        "plain": dict(compression="none", use_dictionary=False, write_statistics=False),
        "dictionary": dict(compression="snappy", use_dictionary=True),
        "pages-v2": dict(compression="zstd", data_page_version="2.0", use_dictionary=False),
        "gzip": dict(compression="gzip", use_dictionary=False, write_statistics=False),
        "groups": dict(compression="none", row_group_size=2, use_dictionary=False, write_statistics=False),
        "delta": dict(
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            column_encoding={"text": "DELTA_BYTE_ARRAY", "input_ids.list.element": "DELTA_BINARY_PACKED"},
        ),
    }
    for name, way in ways.items():
        for kind, table in [("", pa.table(columns)), ("-masks", pa.table(masks))]:
            if name == "delta" and kind:
                continue
            sink = pa.BufferOutputStream()
            # Without the schema of Arrow, which fewbit does not read.
            pq.write_table(table, sink, store_schema=False, **way)
            seed(target, f"{name}{kind}.parquet", sink.getvalue().to_pybytes())


def main():
    safetensors_header()
    pytorch_bin()
    gguf()
    quantization_config()
    quant_state()
    tokenizer_files()
    recipe()
    statistics(sys.argv[1])
    data_rows()
    files = [path for path in SEEDS.rglob("*") if path.is_file()]
    total = sum(path.stat().st_size for path in files)
    print(f"{len(files)} seeds, {total} bytes, the largest {max(path.stat().st_size for path in files)}")


if __name__ == "__main__":
    main()
