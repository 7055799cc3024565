"""Loads what fewbit writes with the libraries that others use, and lets fewbit open what they write.

    python interop.py path/to/fewbit [--model DIRECTORY] [--keep DIRECTORY] [--only NAME,…]

Prints one table and exits with 1 if any check failed. README.md beside this file says what is checked and why the limits are what they are.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TQDM_DISABLE"] = "1"

import numpy
import torch
import transformers

import layouts
import libraries
import other_models
import weights

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "crates" / "model" / "tests" / "golden"
# float32 against float32 with the same weights: the difference is the order of summation. The same limit as fewbit's
# float embeddings have against sentence-transformers.
SAME_WEIGHTS = 1e-5
# The library computes in 16 bits, fewbit in float32: 2^-11 (2^-8) of every value and operation. Besides, the library is
# loaded in float32 and must then agree as above.
SIXTEEN_BITS = {"float16": 0.9999, "bfloat16": 0.999}
WITHOUT_FLOAT32 = " without float32"
# Quantized activations. README.md says why this is judged by the mean, and against the library's own spread.
MEAN_COSINE, SPREAD = 0.999, 5.0

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


@dataclass(kw_only=True)
class Method:
    """One way to run `fewbit quantize`, and what is expected of it."""

    name: str
    arguments: list
    # How far the library's embeddings may be from fewbit's: a key of LIMITS.
    agreement: str
    check: callable
    # On texts (the models of the families have no tokenizer).
    calibrated: bool = False
    # On the tiny models of every family: least cosine of hidden states to the float model. Only names can break this, and a model whose
    # weights went elsewhere is unrelated to its source.
    family_cosine: float = 0.99
    # Others than `arguments` for these.
    family_arguments: list = field(default_factory=list)


def check_rounded(dtype):
    return lambda source, directory, loaded: weights.rounded(source, directory, dtype)


def check_four_bit(kind, double, floats=None):
    return lambda source, directory, loaded: weights.four_bit(source, directory, loaded, kind, double, floats)


def check_four_bit_gptq(kind, double):
    return lambda source, directory, loaded: weights.four_bit(source, directory, loaded, kind, double, gptq=True)


def check_int8(floats):
    return lambda source, directory, loaded: weights.int8(source, directory, loaded, floats=floats)


def check_gptq(saturation_proof):
    return lambda source, directory, loaded: weights.int8(source, directory, loaded, gptq=True, saturation_proof=saturation_proof)


def check_mixed(source, directory, loaded):
    return weights.groups(source, directory, loaded, mixed=True)


RECIPES = Path(__file__).parent
# The feed-forward layers of every family, and not the output of attention.
FEED_FORWARD = "*{.intermediate.dense,[0-9].output.dense,.lin1,.lin2,.mlp.Wi,.mlp.Wo,.ffn,.ffn_output,.gate_proj,.up_proj,.down_proj,.fc1,.fc2}"
METHODS = [
    Method(name="fp16", arguments=["--method", "fp16"], agreement="float16", check=check_rounded(torch.float16)),
    Method(name="bf16", arguments=["--method", "bf16"], agreement="bfloat16", check=check_rounded(torch.bfloat16)),
    Method(name="dynamic", arguments=["--method", "dynamic"], agreement="int8 activations", check=weights.int8),
    Method(name="dynamic, int8 embeddings", arguments=["--method", "dynamic", "--embeddings", "int8"], agreement="int8 activations", check=weights.int8),
    Method(name="dynamic, float embeddings", arguments=["--method", "dynamic", "--keep-embeddings"], agreement="int8 activations", check=weights.int8),
    Method(name="dynamic, weight-only feed-forward", arguments=["--method", "dynamic", "--weight-only", FEED_FORWARD], agreement="int8 activations", check=weights.int8),
    Method(name="static", arguments=["--method", "static"], agreement="static int8 activations", check=weights.int8, calibrated=True),
    Method(name="static, every input", arguments=["--method", "static", "--min-sqnr", "0"], agreement="static int8 activations", check=weights.int8, calibrated=True),
    Method(name="static, 7-bit codes", arguments=["--method", "static", "--backend", "x86"], agreement="static int8 activations", check=weights.int8, calibrated=True),
    Method(name="static, weights per tensor", arguments=["--method", "static", "--backend", "qnnpack"], agreement="static int8 activations", check=weights.int8, calibrated=True),
    Method(name="weight-only", arguments=["--method", "weight-only"], agreement="same weights", check=weights.int8),
    Method(name="weight-only, float embeddings", arguments=["--method", "weight-only", "--keep-embeddings"], agreement="same weights", check=weights.int8),
    Method(name="weight-only, fp16 floats", arguments=["--method", "weight-only", "--float-dtype", "fp16"], agreement="float16", check=check_int8(torch.float16)),
    Method(name="dynamic, GPTQ", arguments=["--method", "dynamic", "--gptq"], agreement="int8 activations", check=check_gptq(False), calibrated=True),
    Method(name="dynamic, GPTQ, saturation-proof", arguments=["--method", "dynamic", "--gptq", "--saturation-proof"], agreement="int8 activations", check=check_gptq(True), calibrated=True),
    Method(name="static, GPTQ", arguments=["--method", "static", "--gptq"], agreement="static int8 activations", check=check_gptq(False), calibrated=True),
    Method(name="weight-only, GPTQ, saturation-proof", arguments=["--method", "weight-only", "--gptq", "--saturation-proof"], agreement="same weights", check=check_gptq(True), calibrated=True),
    Method(name="weight-only int4", arguments=["--method", "weight-only", "--weights", "int4", "--group-size", "64"], agreement="same weights", check=weights.groups, family_cosine=0.5, family_arguments=["--method", "weight-only", "--weights", "int4", "--group-size", "channel"]),
    Method(name="weight-only int4, asymmetric, int-quantized", arguments=["--method", "weight-only", "--weights", "int4", "--group-size", "32", "--asymmetric", "--layout", "int-quantized"], agreement="same weights", check=weights.groups, family_cosine=0.5, family_arguments=["--method", "weight-only", "--weights", "int4", "--group-size", "channel", "--asymmetric", "--layout", "int-quantized"]),
    Method(name="dynamic int4", arguments=["--method", "dynamic", "--weights", "int4", "--group-size", "64"], agreement="int8 activations", check=weights.groups, family_cosine=0.5, family_arguments=["--method", "dynamic", "--weights", "int4", "--group-size", "channel"]),
    Method(name="weight-only, int4 and int8 mixed", arguments=["--recipe", str(RECIPES / "mixed-weight-only.toml")], agreement="same weights", check=check_mixed, family_cosine=0.5, family_arguments=["--recipe", str(RECIPES / "mixed-weight-only-families.toml")]),
    Method(name="dynamic, int4 and int8 mixed", arguments=["--recipe", str(RECIPES / "mixed-dynamic.toml")], agreement="int8 activations", check=check_mixed, family_cosine=0.5, family_arguments=["--recipe", str(RECIPES / "mixed-dynamic-families.toml")]),
    Method(name="nf4", arguments=["--method", "nf4"], agreement="same weights", check=check_four_bit("nf4", False), family_cosine=0.5),
    Method(name="nf4, double quantization", arguments=["--method", "nf4", "--double-quant"], agreement="same weights", check=check_four_bit("nf4", True), family_cosine=0.5),
    Method(name="nf4, double quantization, fp16 floats", arguments=["--method", "nf4", "--double-quant", "--float-dtype", "fp16"], agreement="float16 without float32", check=check_four_bit("nf4", True, torch.float16), family_cosine=0.5),
    Method(name="nf4, double quantization, bf16 floats", arguments=["--method", "nf4", "--double-quant", "--float-dtype", "bf16"], agreement="bfloat16 without float32", check=check_four_bit("nf4", True, torch.bfloat16), family_cosine=0.5),
    Method(name="nf4, GPTQ", arguments=["--method", "nf4", "--gptq"], agreement="same weights", check=check_four_bit_gptq("nf4", False), family_cosine=0.5, calibrated=True),
    Method(name="nf4, GPTQ, activation-weighted scales, double quantization", arguments=["--method", "nf4", "--gptq", "--scales", "activation-weighted", "--double-quant"], agreement="same weights", check=check_four_bit_gptq("nf4", True), family_cosine=0.5, calibrated=True),
    Method(name="fp4", arguments=["--method", "fp4"], agreement="same weights", check=check_four_bit("fp4", False), family_cosine=0.5),
    Method(name="fp4, double quantization", arguments=["--method", "fp4", "--double-quant"], agreement="same weights", check=check_four_bit("fp4", True), family_cosine=0.5),
]
# One family each, with and without a tensor name prefix; the names of quantization_config must work for all.
FAMILIES = [
    "bert", "bert-masked-lm", "bert-sequence-classification", "bert-old-layer-norm-names", "roberta", "xlm-roberta-masked-lm",
    "camembert", "distilbert", "distilbert-relu-masked-lm", "electra-embedding-size-16", "electra-embedding-size-equal", "mpnet", "mpnet-long-masked-lm",
    "modernbert", "modernbert-biases-masked-lm", "llama", "llama-biases-llama3-rotation", "mistral", "qwen2", "qwen3", "eurobert", "gemma3",
    "nomic-bert", "nomic-bert-module-names", "gte", "gte-module-names", "jina-embeddings-v3",
    "deberta", "deberta-masked-lm", "deberta-v2", "deberta-v2-own-projections-masked-lm",
    "deberta-v2-convolution", "deberta-v2-sequence-classification", "albert", "albert-groups-masked-lm",
]
# transformers' own code mixes dtypes, and does not run in 16 bits on a CPU.
NOT_IN_SIXTEEN_BITS = ["deberta", "deberta-masked-lm"]


def without_computed_buffers(report):
    """A quantized Gemma embedding is reported to lack its factor, a buffer that no file has and that is computed from the width."""
    report = {kind: [key for key in keys if not key.endswith("embed_tokens.embed_scale")] for kind, keys in report.items()}
    return {kind: keys for kind, keys in report.items() if keys}


@dataclass
class Row:
    name: str
    cells: dict = field(default_factory=dict)
    failures: list = field(default_factory=list)
    # Why nothing was compared, if so: a library that is not installed.
    not_run: str = ""

    @property
    def outcome(self):
        return "FAILED" if self.failures else "not run" if self.not_run else "ok"

    def expect(self, holds, message):
        if not holds:
            self.failures.append(message)


class Fewbit:
    def __init__(self, binary, scratch):
        self.binary, self.scratch = binary, scratch

    def run(self, *arguments):
        done = subprocess.run([self.binary, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"fewbit {' '.join(map(str, arguments))}: exit code {done.returncode}: {done.stderr.strip()[-600:]}")
        return done.stdout

    def refusal(self, *arguments):
        """Standard error of a run that fails; empty if it does not."""
        done = subprocess.run([self.binary, *map(str, arguments)], capture_output=True, text=True)
        return done.stderr if done.returncode == 1 else ""

    def quantize(self, source, target, arguments):
        self.run("quantize", source, "-o", target, *arguments)

    def calibration(self, texts):
        lines = self.scratch / "calibration.txt"
        lines.write_text("".join(f"{text}\n" for text in texts))
        return ["--calibration", lines, "--samples", len(texts)]

    def embed(self, model, texts):
        lines, output = self.scratch / "texts.txt", self.scratch / "embeddings.npy"
        lines.write_text("".join(f"{text}\n" for text in texts))
        output.unlink(missing_ok=True)
        self.run("embed", model, "-i", lines, "-o", output)
        return torch.from_numpy(numpy.load(output))


def texts():
    """The golden texts that fit on a line and are not blank."""
    lines = (GOLDEN / "sentences" / "all-MiniLM-L6-v2" / "expected.jsonl").read_text().splitlines()
    candidates = [json.loads(line)["text"] for line in lines]
    return [text for text in candidates if text.strip() and all(character.isprintable() or character == " " for character in text)]


def megabytes(directory):
    return sum(file.stat().st_size for file in Path(directory).rglob("*") if file.is_file()) / 1e6


def cosines(first, second):
    return torch.nn.functional.cosine_similarity(first.double(), second.double())


def compare(row, directory, sequences, loaded, ours, agreement):
    """`ours` against the embeddings of the `loaded` library model, judged by `agreement`."""
    theirs = libraries.embeddings(loaded, sequences)
    if ours.shape != theirs.shape or ours.dtype != torch.float32:
        row.expect(False, f"embeddings: expected {tuple(theirs.shape)} float32, found {tuple(ours.shape)} {ours.dtype}")
        return
    each = cosines(ours, theirs)
    row.cells |= {"min cosine": f"{each.min():.6f}", "mean cosine": f"{each.mean():.6f}"}
    if agreement.endswith(WITHOUT_FLOAT32):
        # 4-bit weights that dequantize to 16 bits: there is no float32 form of the library's model to load.
        least = SIXTEEN_BITS[agreement.removesuffix(WITHOUT_FLOAT32)]
        row.expect(each.min() > least, f"cosine {each.min():.6f}, expected above {least}")
        return
    if agreement in ("int8 activations", "static int8 activations"):
        wide = libraries.embeddings(libraries.load(directory, dtype=torch.float64)[0], sequences)
        mean, library = each.mean().item(), cosines(theirs, wide).mean().item()
        row.cells["library to itself"] = f"{library:.6f}"
        # One range for all tokens has wider steps, of which the library's own spread is the measure.
        row.expect(agreement.startswith("static") or mean > MEAN_COSINE or library < MEAN_COSINE, f"mean cosine {mean:.6f}, expected above {MEAN_COSINE}")
        row.expect(1 - mean <= SPREAD * (1 - library), f"1 - mean cosine is {1 - mean:.1e}, more than {SPREAD} times the library's own {1 - library:.1e}")
        return
    if agreement in SIXTEEN_BITS:
        least = SIXTEEN_BITS[agreement]
        row.expect(each.min() > least, f"cosine {each.min():.6f}, expected above {least}")
        theirs = libraries.embeddings(libraries.load(directory, dtype=torch.float32)[0], sequences)
    largest = (ours - theirs).abs().max().item()
    row.cells["max difference"] = f"{largest:.1e}"
    row.expect(largest <= SAME_WEIGHTS, f"difference {largest:.1e} with the same weights in float32, expected at most {SAME_WEIGHTS}")


def fewbit_to_libraries(fewbit, model, work, method, lines, float_report, float_embeddings):
    row = Row(method.name)
    out = work / method.name.replace(", ", "-").replace(" ", "-")
    fewbit.quantize(model, out, method.arguments + (fewbit.calibration(lines) if method.calibrated else []))
    row.cells["MB"] = f"{megabytes(out):.1f}"
    loaded, report = libraries.load(out)
    if "quantization_config" in libraries.config_json(out):
        row.cells["loaded"] = libraries.config_json(out)["quantization_config"]["quant_method"]
    else:
        row.cells["loaded"] = str(loaded.dtype).removeprefix("torch.")
        row.expect(row.cells["loaded"] == method.agreement, f"loaded as {loaded.dtype}, expected {method.agreement}")
    row.cells["keys"] = "as the source" if report == float_report else "DIFFER"
    row.expect(report == float_report, f"loading report {report}, source {float_report}")
    ours = fewbit.embed(out, lines)
    compare(row, out, libraries.token_ids(out, lines), loaded, ours, method.agreement)
    row.cells["to float"] = f"{cosines(ours, float_embeddings).mean():.6f}"
    # After the first forward, which decompresses compressed-tensors modules.
    dequantized = {name: libraries.dequantized(module) for name, module in loaded.named_modules() if hasattr(module, "weight")}
    try:
        row.cells["weights"] = method.check(model, out, dequantized)
    except weights.Difference as difference:
        row.cells["weights"] = "DIFFER"
        row.expect(False, str(difference))
    row.expect(libraries.loads_with_fresh_head(out), "a class with a new head gives NaN")
    return row


def families(fewbit, work, method):
    """Names and prefixes of every family: loads with AutoModel, same report as the float source, close hidden states."""
    row = Row(f"{method.name}: {len(FAMILIES)} families")
    least, total = 1.0, 0.0
    arguments = method.family_arguments or method.arguments
    for family in FAMILIES:
        source, out = GOLDEN / "architectures" / family, work / "families" / f"{family}-{method.name.replace(' ', '-')}"
        out.parent.mkdir(exist_ok=True)
        if "int8" in arguments and "masked-lm" in family:
            # Its head shares the table, and the library cannot run it on codes: what would not load is not written.
            refusal = fewbit.refusal("quantize", source, "-o", out, *arguments)
            row.expect("shares the word embeddings" in refusal, f"{family}: expected a refusal of the shared table, found: {refusal}")
            continue
        try:
            fewbit.quantize(source, out, arguments)
            total += megabytes(out)
            reference, float_report = libraries.load(source)
            loaded, report = libraries.load(out, **({"dtype": torch.float32} if family in NOT_IN_SIXTEEN_BITS else {}))
            report = without_computed_buffers(report)
            row.expect(report == float_report, f"{family}: loading report {report}, source {float_report}")
            if family in NOT_IN_SIXTEEN_BITS and "nf4" in arguments and "--float-dtype" in arguments:
                # Beside 4-bit layers the library leaves halves as they are, whatever dtype is asked for: only names can be checked.
                continue
            ids = [5, 40, 7, 66, 23, 12, 9]
            cosine = torch.nn.functional.cosine_similarity(libraries.hidden_states(loaded, ids), libraries.hidden_states(reference, ids)).min().item()
            least = min(least, cosine)
            row.expect(cosine > method.family_cosine, f"{family}: cosine {cosine:.4f} to the float model, expected above {method.family_cosine}")
        except Exception as error:
            row.expect(False, f"{family}: {type(error).__name__}: {error}")
    row.cells |= {"MB": f"{total:.1f}", "to float": f"{least:.4f} (min)", "keys": "DIFFER" if row.failures else "as the source"}
    return row


def others(model, calibration):
    """Checkpoints written by the libraries: name, writer, agreement."""

    def four_bit(kind, double, dtype=torch.float32):
        return lambda out: libraries.write_bitsandbytes(model, out, kind, double, dtype)

    def compressed(weight, activations=None):
        return lambda out: libraries.write_compressed_tensors(model, out, weight, activations, calibration)

    yield "bitsandbytes nf4", four_bit("nf4", False), "same weights"
    yield "bitsandbytes nf4, double", four_bit("nf4", True), "same weights"
    yield "bitsandbytes fp4", four_bit("fp4", False), "same weights"
    yield "bitsandbytes fp4, double", four_bit("fp4", True), "same weights"
    yield "bitsandbytes nf4, bf16", four_bit("nf4", True, torch.bfloat16), "bfloat16 without float32"
    yield "compressed-tensors W8A16", compressed(libraries.INT8_CHANNEL), "same weights"
    yield "compressed-tensors W4A16 group 128", compressed(libraries.INT4_GROUP), "same weights"
    yield "compressed-tensors W8A8 dynamic", compressed(libraries.INT8_CHANNEL, libraries.PER_TOKEN_SYMMETRIC), "int8 activations"
    yield "compressed-tensors W8A8 dynamic affine", compressed(libraries.INT8_CHANNEL, libraries.PER_TOKEN_AFFINE), "int8 activations"
    yield "compressed-tensors W8A8 static affine", compressed(libraries.INT8_CHANNEL, libraries.STATIC_AFFINE), "static int8 activations"


def libraries_to_fewbit(fewbit, work, name, write, agreement, lines, sequences, float_embeddings):
    row = Row(name)
    out = work / "others" / name.replace(",", "").replace(" ", "-")
    out.parent.mkdir(exist_ok=True)
    write(out)
    row.cells["MB"] = f"{megabytes(out):.1f}"
    ours = fewbit.embed(out, lines)
    row.cells["loaded"] = "fewbit"
    compare(row, out, sequences, libraries.load(out)[0], ours, agreement)
    row.cells["to float"] = f"{cosines(ours, float_embeddings).mean():.6f}"
    return row


def refused_tables(fewbit, model, work, embeddings):
    """Word embeddings in codes beside 4-bit layers: fewbit runs them, and the library says that it does not, instead of taking codes for values."""
    row = Row(f"nf4, {embeddings} embeddings")
    out = work / f"nf4-{embeddings}-table"
    fewbit.quantize(model, out, ["--method", "nf4", "--double-quant", "--embeddings", embeddings, "--float-dtype", "fp16"])
    row.cells["MB"] = f"{megabytes(out):.1f}"
    fewbit.embed(out, ["a text"])
    try:
        libraries.load(out)
        row.expect(False, "the library loads it")
    except RuntimeError as error:
        row.cells["loaded"] = "refused"
        row.expect("ignore_mismatched_sizes" in str(error), f"expected a refusal of the shape, found: {error}")
    return row


def sentence_transformers(fewbit, model, work, method, lines):
    """sentence-transformers goes past the call at which transformers unpacks weights, so that these are unpacked as they are loaded."""
    row = Row(f"sentence-transformers: {method}")
    out = work / f"sentence-transformers-{method}"
    fewbit.quantize(model, out, ["--method", method])
    each = cosines(fewbit.embed(out, lines), libraries.sentence_embeddings(out, lines))
    row.cells |= {"min cosine": f"{each.min():.6f}", "mean cosine": f"{each.mean():.6f}"}
    row.expect(each.mean() > MEAN_COSINE, f"mean cosine {each.mean():.6f}, expected above {MEAN_COSINE}")
    return row


def guarded(name, check):
    """The check's row; an exception is a failure of that row, not of the others."""
    try:
        return check()
    except Exception as error:
        if not isinstance(error, RuntimeError):
            traceback.print_exc()
        return Row(name, failures=[f"{type(error).__name__}: {str(error)[:600]}"])


def print_table(rows):
    columns = ["MB", "loaded", "keys", "min cosine", "mean cosine", "library to itself", "max difference", "to float", "weights"]
    table = [["", *columns, ""]]
    table += [[row.name, *(row.cells.get(column, "") for column in columns), row.outcome] for row in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fewbit", help="the binary")
    parser.add_argument("--model", default=os.environ.get("FEWBIT_SAMPLE_MODEL") or ROOT / "models" / "all-MiniLM-L6-v2", type=Path)
    parser.add_argument("--keep", type=Path, help="write the checkpoints here and leave them (an empty or new directory)")
    parser.add_argument("--only", help="run only the checks whose name contains one of these, separated by commas")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.keep or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        fewbit = Fewbit(Path(options.fewbit).resolve(), work)
        wanted = lambda name: not options.only or any(part in name for part in options.only.split(","))

        print(f"{fewbit.run('--version').strip()}; {libraries.versions()}")
        lines = texts()
        reference, float_report = libraries.load(options.model, dtype=torch.float32)
        sequences = libraries.token_ids(options.model, lines)
        float_embeddings = libraries.embeddings(reference, sequences)
        print(f"{options.model.name}, {len(lines)} texts, {sum(map(len, sequences))} tokens\n", flush=True)

        rows = []

        def add(name, check):
            if wanted(name):
                rows.append(guarded(name, check))
                print(f"{rows[-1].name}: {rows[-1].outcome}", file=sys.stderr, flush=True)

        def float_source():
            row = Row("the float source")
            row.cells |= {"MB": f"{megabytes(options.model):.1f}", "loaded": "fewbit"}
            compare(row, options.model, sequences, reference, fewbit.embed(options.model, lines), "same weights")
            return row

        add("the float source", float_source)
        for method in METHODS:
            add(method.name, lambda: fewbit_to_libraries(fewbit, options.model, work, method, lines, float_report, float_embeddings))
        for embeddings in ("int8", "nf4"):
            add(f"nf4, {embeddings} embeddings", lambda: refused_tables(fewbit, options.model, work, embeddings))
        for layout in layouts.LAYOUTS:
            name = f"layout: {layout.name}"
            add(name, lambda: layouts.check(Row(name), fewbit, options.model, work, layout, lines))
        # With the same weights in floats: what it makes of int8 activations is judged above.
        add("sentence-transformers: weight-only", lambda: sentence_transformers(fewbit, options.model, work, "weight-only", lines))
        for method in METHODS:
            if method.calibrated:
                continue
            add(f"{method.name}: families", lambda: families(fewbit, work, method))
        for method in other_models.METHODS:
            name = f"{method}: other models"
            add(name, lambda: other_models.check(Row(name), fewbit, work, method))
        for name, write, agreement in others(options.model, sequences):
            add(name, lambda: libraries_to_fewbit(fewbit, work, name, write, agreement, lines, sequences, float_embeddings))

        print_table(rows)
        failures = [(row.name, failure) for row in rows for failure in row.failures]
        for name, failure in failures:
            print(f"\n{name}: {failure}")
        not_run = [row for row in rows if row.not_run]
        for row in not_run:
            print(f"\n{row.name}: NOT RUN, {row.not_run}")
        print(f"\n{len(rows) - len(not_run)} checks, {len(failures)} failures, {len(not_run)} not run")
        return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
