"""Reads the GGUF files that fewbit writes with the package gguf and with llama.cpp, and lets fewbit read them back.

    python gguf_files.py path/to/fewbit --model DIRECTORY [--keep DIRECTORY]

Prints one table and exits with 1 if any check failed. README.md beside this file says what is checked. Without llama-cpp-python what needs it is not run, and the
last line says so.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy
from gguf import quants
from safetensors.numpy import load_file
from tokenizers import Tokenizer

import gguf_models

try:
    import llama_cpp
except ImportError:
    llama_cpp = None

TYPES = ["f32", "f16", "bf16", "q8_0", "q6_k", "q5_k", "q5_1", "q5_0", "q4_1", "q4_0", "q4_k"]
# Of the tiny models: floats, blocks of 32 and of 256.
TINY_TYPES = ["f32", "q8_0", "q4_k"]
# 1 - cosine of llama.cpp's embeddings to fewbit's, both of the same float weights: BERT's GELU by tanh and tables of 16 bits are what differs.
SAME_FLOATS = 1e-4
# The same where llama.cpp computes with the blocks, or in bf16, in the mean over the texts. It rounds the inputs of such layers to 8 bits with steps of a 127th of the largest
# of 32 values, an error of about 1 % of a product; 24 of them, one after the other, add up to 5 % of a vector, which is 1e-3 of the cosine. The largest is shown and not
# judged: blocks of 256 values have wider steps.
ROUNDED_INPUTS = 1e-3
TEXTS = [
    "A man is eating food.",
    "The quick brown fox jumps over the lazy dog, twice!",
    "GGUF files, read back: 42 % of 1234567 bytes.",
    "naïve café, Köln",
    "x",
    "Line one,  two spaces; it's done and they'll see.",
]
# What the converter of llama.cpp calls modules otherwise than transformers.
OTHER_NAMES = {"post_mlp_layernorm": "layer_output_norm", "post_attention_layernorm": "attn_output_norm"}


def fewbit(program, *arguments):
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"fewbit {' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


def stored_name(tensor, architecture, layers):
    """The name that gguf's own map gives a tensor of transformers."""
    module, _, part = tensor.rpartition(".")
    if architecture == "nomic-bert":
        for name, other in OTHER_NAMES.items():
            if module.endswith(name):
                return f"blk.{module.split('.')[1]}.{other}.{part}"
    kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    # Of Nomic BERT the map knows queries, keys and values in one tensor alone.
    for kind in (kind, gguf.MODEL_ARCH.LLAMA):
        names = gguf.get_tensor_name_map(kind, layers)
        found = names.get_name(module) or names.get_name(f"model.{module}")
        if found is not None:
            return f"{found}.{part}"
    raise AssertionError(f"{tensor}: gguf knows no name for it")


def unpermute(rows, head_size):
    """The order of transformers, of what the converter permutes (LlamaModel.permute)."""
    return rows.reshape(-1, head_size // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def check_tensors(file, back):
    """Every tensor that fewbit reads, bit for bit against what gguf reads."""
    reader = gguf.GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    architecture = fields["general.architecture"]
    layers = fields[f"{architecture}.block_count"]
    stored = {tensor.name: tensor for tensor in reader.tensors}
    read = load_file(back / "model.safetensors")
    for name, values in read.items():
        tensor = stored.pop(stored_name(name, architecture, layers))
        expected = quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        if architecture == "llama" and any(part in name for part in ("q_proj", "k_proj")):
            expected = unpermute(expected, fields["llama.attention.key_length"])
        if not numpy.array_equal(values.view(numpy.uint32), expected.reshape(values.shape).view(numpy.uint32)):
            raise AssertionError(f"{name}: fewbit reads other values than gguf")
    # Divisors of frequencies, of which config.json has what they follow from: embeddings show whether it is so.
    stored.pop("rope_freqs.weight", None)
    if stored:
        raise AssertionError(f"not read: {sorted(stored)}")
    return len(read)


def embeddings(program, model, folder):
    texts, out = folder / "texts.txt", folder / "embeddings.npy"
    texts.write_text("\n".join(TEXTS) + "\n")
    fewbit(program, "embed", model, "-i", texts, "-o", out, "--force")
    return numpy.load(out)


def of_llama_cpp(file):
    model = llama_cpp.Llama(str(file), embedding=True, verbose=False, n_ctx=512, n_threads=1)
    return model, numpy.array([model.embed(text) for text in TEXTS], dtype=numpy.float32)


def distances(ours, theirs):
    """1 - cosine of each text."""
    norms = numpy.linalg.norm(ours, axis=1) * numpy.linalg.norm(theirs, axis=1)
    return 1 - (ours.astype(numpy.float64) * theirs).sum(axis=1) / norms


def check_llama_cpp(program, file, back, folder):
    """Tokens and embeddings of llama.cpp against those of the directory that fewbit makes of the file: the largest 1 - cosine where llama.cpp computes with the same
    floats, and the mean and the largest where it computes with the file itself."""
    model, of_file = of_llama_cpp(file)
    tokenizer = Tokenizer.from_file(str(back / "tokenizer.json"))
    for text in TEXTS:
        ours, theirs = tokenizer.encode(text).ids, model.tokenize(text.encode(), add_bos=True, special=False)
        if ours != theirs:
            raise AssertionError(f"{text!r}: tokens {ours}, llama.cpp has {theirs}")
    ours = embeddings(program, back, folder)
    floats = folder / "floats.gguf"
    fewbit(program, "convert", back, "-o", floats, "--to", "gguf:f32")
    same = distances(ours, of_llama_cpp(floats)[1]).max()
    rounded = distances(ours, of_file)
    if not same <= SAME_FLOATS:
        raise AssertionError(f"1 - cosine to llama.cpp with the same floats: expected at most {SAME_FLOATS}, found {same:.2e}")
    if not rounded.mean() <= ROUNDED_INPUTS:
        raise AssertionError(f"mean of 1 - cosine to llama.cpp: expected at most {ROUNDED_INPUTS}, found {rounded.mean():.2e}")
    return f"{same:8.1e}  {rounded.mean():8.1e}  {rounded.max():8.1e}"


def check(program, source, kind, folder):
    """One file, written, read by the others and read back."""
    file, back = folder / f"{kind}.gguf", folder / f"{kind}-back"
    fewbit(program, "convert", source, "-o", file, "--to", f"gguf:{kind}")
    fewbit(program, "convert", file, "-o", back, "--to", "f32")
    tensors = check_tensors(file, back)
    return tensors, "not run" if llama_cpp is None else check_llama_cpp(program, file, back, folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        names = gguf_models.make(folder / "models", arguments.model)
        cases = [("sample", arguments.model, kind) for kind in TYPES]
        cases += [(name, folder / "models" / name, kind) for name in names for kind in TINY_TYPES]
        print(f"{'':<29}  1 - cosine to llama.cpp with the same floats, with the file (mean, largest)")
        print(f"{'model':<14}{'type':<7}{'tensors':>8}")
        for name, source, kind in cases:
            place = folder / f"{name}-{kind}"
            place.mkdir()
            try:
                tensors, shown = check(arguments.program, source, kind, place)
                print(f"{name:<14}{kind:<7}{tensors:>8}  {shown}", flush=True)
            except (AssertionError, RuntimeError, ValueError) as error:
                failures += 1
                print(f"{name:<14}{kind:<7}  FAILED: {error}", flush=True)
    print(f"gguf {getattr(gguf, '__version__', '') or '0.19.0'}: {len(cases) - failures} of {len(cases)} files are as they should be")
    if llama_cpp is None:
        print("llama.cpp: NOT RUN, llama-cpp-python is not installed (pip install llama-cpp-python==0.3.36 compiles it)")
    else:
        print(f"llama.cpp of llama-cpp-python {llama_cpp.__version__}: run")
    return failures != 0


if __name__ == "__main__":
    sys.exit(main())
