"""Compares a transformers model under PyTorch's own int8 and under fewbit: same token ids, same threads, in one process, taking turns.

    python bench.py [--sample DIRECTORY] [--models minilm,bert-base] [--shapes 1x16,1x128,8x128] [--threads 1,2] [--rounds 10]

Needs the packages fewbit, torch and transformers; torchao where its rows are wanted. README.md beside this file says what is timed.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import sys
import time
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy
import torch
import transformers

import fewbit
import fewbit.torch

SAMPLE = Path(__file__).resolve().parents[2] / "models/all-MiniLM-L6-v2"
# A turn is at least one call, and as many as fit into this time.
TURN_SECONDS = 0.15
MOST_CALLS = 20


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    listed = lambda text: text.split(",")
    parser.add_argument("--sample", type=Path, default=SAMPLE, help="directory of all-MiniLM-L6-v2")
    parser.add_argument("--models", type=listed, default=["minilm", "bert-base"], help="minilm: the sample model; bert-base: its shape, random weights")
    parser.add_argument("--shapes", type=listed, default=["1x16", "1x128", "8x128"], help="BATCHxTOKENS, with commas between")
    parser.add_argument("--threads", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2])
    parser.add_argument("--rows", type=listed, help=f"those whose names have one of these words: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write every time here")
    return parser.parse_args()


def float_model(name, sample):
    """The float model of that name, ready to run."""
    if name == "minilm":
        return transformers.AutoModel.from_pretrained(sample).eval()
    if name == "bert-base":
        torch.manual_seed(0)
        return transformers.BertModel(transformers.BertConfig()).eval()
    raise SystemExit(f"--models: expected minilm or bert-base, found {name!r}")


def torch_ao(model):
    return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)


def torchao(model):
    """torchao's int8 with activations quantized as they come, compiled, as its documentation asks for."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    converted = copy.deepcopy(model)
    quantize_(converted, Int8DynamicActivationInt8WeightConfig())
    return torch.compile(converted)


def fewbit_whole(model):
    return fewbit.torch.quantize_dynamic(model)


def fewbit_layers(model):
    """Every layer by itself, asked for by its name, so that the encoder around them stays PyTorch's."""
    names = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    return fewbit.torch.quantize_dynamic(model, names)


ROWS = {
    "torch float": lambda model: model,
    "torch float, compiled": torch.compile,
    "torch.ao int8 dynamic": torch_ao,
    "torchao int8 dynamic, compiled": torchao,
    "fewbit, whole encoder": fewbit_whole,
    "fewbit, single layers": fewbit_layers,
}


def inputs(shape, vocabulary):
    """Token ids of words, the same in every run, and a mask without padding."""
    batch, tokens = map(int, shape.split("x"))
    ids = numpy.random.default_rng(0).integers(1000, vocabulary, (batch, tokens))
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.ones(batch, tokens, dtype=torch.int64)}


def turn(model, batch):
    """Seconds of each call of a turn, after one that does not count: the others have just used the caches."""
    seconds = []
    with torch.inference_mode():
        model(**batch)
        started = time.perf_counter()
        while len(seconds) < MOST_CALLS:
            before = time.perf_counter()
            model(**batch)
            seconds.append(time.perf_counter() - before)
            if time.perf_counter() - started > TURN_SECONDS:
                break
    return seconds


def cosine(reference, model, batch):
    """The mean cosine of the hidden states to those of the float model."""
    with torch.inference_mode():
        expected, found = (one(**batch).last_hidden_state.flatten(0, 1) for one in (reference, model))
    return torch.nn.functional.cosine_similarity(expected, found, dim=-1).mean().item()


def cpu():
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    arguments = parse()
    results = []
    for name in arguments.models:
        reference = float_model(name, arguments.sample)
        models, converted_in = {}, {}
        for row in (row for row in ROWS if arguments.rows is None or any(word in row for word in arguments.rows)):
            started = time.perf_counter()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    models[row] = ROWS[row](reference)
            except ImportError as error:
                print(f"LEFT OUT {row}: {error}", file=sys.stderr)
                continue
            converted_in[row] = time.perf_counter() - started
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            fewbit.set_num_threads(threads)
            seconds = {(row, shape): [] for row in models for shape in arguments.shapes}
            cosines = {}
            for shape in arguments.shapes:
                batch = inputs(shape, reference.config.vocab_size)
                for row in list(models):
                    try:
                        cosines[row] = cosine(reference, models[row], batch)
                    except Exception as error:  # A compiler that is not there, or a version that does not fit: the others go on.
                        print(f"FAILED {row}: {type(error).__name__}: {str(error).splitlines()[0][:200]}", file=sys.stderr)
                        del models[row]
                for round_number in range(arguments.rounds):
                    order = list(models) if round_number % 2 == 0 else list(reversed(models))
                    for row in order:
                        seconds[row, shape] += turn(models[row], batch)
            print(f"\n{name}, {threads} thread(s), median (and least) milliseconds, {arguments.rounds} rounds, {cpu()}")
            print(f"{'':32} {'cosine':>8} {'made in':>8}" + "".join(f" {shape:>18}" for shape in arguments.shapes))
            for row in models:
                times = [seconds[row, shape] for shape in arguments.shapes]
                cells = "".join(f" {1e3 * statistics.median(one):>9.2f} ({1e3 * min(one):.2f})".rjust(19) for one in times)
                print(f"{row:32} {cosines[row]:>8.5f} {converted_in[row]:>6.2f} s{cells}", flush=True)
                for shape, one in zip(arguments.shapes, times):
                    results.append({"model": name, "threads": threads, "row": row, "shape": shape, "seconds": one, "cosine": cosines[row]})
    print(f"\nversions: fewbit {fewbit.__version__}, torch {torch.__version__}, transformers {transformers.__version__}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"cpu": cpu(), "results": results}, indent=1))


if __name__ == "__main__":
    main()
