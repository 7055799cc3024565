"""Compares fewbit's speed with that of other engines: same CPU, same token ids, same number of threads, taking turns.

    bench/peers/run.sh [options]        builds what is needed and runs this

README.md beside this file says what is timed. Exits with 1 if an engine failed or computed something else than the model.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy

import bert_base
import conductor
import report
import workloads
from engines import ENGINES, LEAST_COSINE, REFERENCE

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CHECK_TEXTS = 64


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    listed = lambda text: text.split(",")
    parser.add_argument("--model", type=Path, required=True, help="BERT checkpoint directory in float")
    parser.add_argument("--bert-base", action="store_true", help="instead of MODEL, one of BERT-base's shape and random weights, with MODEL's tokenizer")
    parser.add_argument("--rust", type=Path, default=ROOT / "target/peers/rust/release/runner", help="the Rust runner")
    parser.add_argument("--fewbit", type=Path, default=ROOT / "target/release/fewbit", help="the fewbit program, which makes the INT8 checkpoint")
    parser.add_argument("--out", type=Path, default=ROOT / "target/peers", help="folder of converted models")
    parser.add_argument("--calibration", type=Path, required=True, help="texts for static ranges and for the check of embeddings")
    parser.add_argument("--engines", type=listed, default=[engine.name for engine in ENGINES], help="names, or beginnings of names, with commas between")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpus", type=lambda text: {int(cpu) for cpu in listed(text)}, help="pin every runner to these CPUs: 0,1")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--shapes", type=listed, default=["1x16", "1x128", "8x128", "32x128"], help="BATCHxTOKENS, with commas between; `none`")
    parser.add_argument("--sentences", type=Path, help="a file of texts, run in batches, sorted by length and in file order")
    parser.add_argument("--texts", type=int, default=512, help="number of texts taken from it, evenly spaced")
    parser.add_argument("--batch", type=int, default=32, help="texts in a batch of sentences")
    parser.add_argument("--isa", choices=["avx2"], help="cap the instruction set of every engine; those that cannot be capped are left out")
    parser.add_argument("--statistic", choices=list(report.STATISTICS), default="median", help="of the timed calls; min on a busy machine")
    parser.add_argument("--json", type=Path, help="write settings and every time here")
    arguments = parser.parse_args()
    for name in arguments.engines:
        if not any(engine.name.startswith(name) for engine in ENGINES):
            parser.error(f"--engines: no engine starts with {name!r}; there are {', '.join(engine.name for engine in ENGINES)}")
    if arguments.threads < 1 or arguments.rounds < 1 or arguments.batch < 1:
        parser.error("--threads, --rounds and --batch: expected at least 1")
    return arguments


def note(text):
    print(text, file=sys.stderr, flush=True)


def chosen(arguments):
    """The engines of --engines; with --isa, those that it can cap."""
    engines = [engine for engine in ENGINES if any(engine.name.startswith(name) for name in arguments.engines)]
    if arguments.isa:
        left_out = [engine.name for engine in engines if arguments.isa not in engine.isa]
        if left_out:
            note(f"--isa {arguments.isa}: left out, as nothing caps their instruction set: {', '.join(left_out)}")
        engines = [engine for engine in engines if arguments.isa in engine.isa]
    return engines


def start(engine, arguments, model, out):
    command = engine.command(model, out, arguments.rust, arguments.threads)
    environment = engine.isa[arguments.isa] if arguments.isa else {}
    return conductor.Runner(command, arguments.threads, arguments.cpus, environment)


def convert_all(engines, arguments, model, out):
    """Runs convert.py once for each conversion, so that one that breaks takes only its own engines out. Returns failures by conversion."""
    failures = {}
    for name in dict.fromkeys(engine.conversion for engine in engines if engine.conversion):
        command = [sys.executable, HERE / "convert.py", model, out, "--calibration", arguments.calibration, "--fewbit", arguments.fewbit, "--only", name]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            failures[name] = f"conversion {name}: " + " | ".join(done.stderr.strip().splitlines()[-3:])
            note(done.stderr)
    return failures


def mean_cosine(rows, reference):
    rows, reference = numpy.array(rows), numpy.array(reference)
    return float((rows * reference).sum(1).mean())


def main():
    arguments = parse()
    model = arguments.model.resolve()
    if arguments.bert_base:
        made = arguments.out / "models/bert-base"
        if not made.exists():
            note("writing a model of BERT-base's shape")
            bert_base.write(made, model)
        model = made
    out = arguments.out / "converted" / model.name
    engines = chosen(arguments)

    passes = [workloads.shape(text) for text in arguments.shapes if text != "none"]
    if arguments.sentences:
        passes += workloads.sentences(workloads.tokenize(model, workloads.read_texts(arguments.sentences, arguments.texts)), arguments.batch)
    check = workloads.tokenize(model, workloads.read_texts(arguments.calibration, CHECK_TEXTS))
    check = [check[start : start + 32] for start in range(0, len(check), 32)]

    failures = convert_all(engines, arguments, model, out)
    reference_engine = next(engine for engine in ENGINES if engine.name == REFERENCE)
    reference_runner = start(reference_engine, arguments, model, out)
    reference = reference_runner.embeddings(check)
    reference_runner.close()

    results, runners = {}, {}
    for engine in engines:
        result = results[engine.name] = conductor.Result(engine, failure=failures.get(engine.conversion))
        if result.failure:
            continue
        note(f"starting: {engine.name}")
        try:
            runner = start(engine, arguments, model, out)
            result.version = runner.version
            result.cosine = mean_cosine(runner.embeddings(check), reference)
        except conductor.RunnerError as error:
            result.failure = str(error)
            continue
        least = LEAST_COSINE[engine.precision]
        if not result.cosine >= least:
            result.failure = f"wrong embeddings: mean cosine to {REFERENCE} is {result.cosine:.6f}, expected at least {least}"
            runner.close()
            continue
        runners[engine.name] = runner
    started = list(runners.values())
    conductor.measure(runners, results, passes, arguments.rounds, arguments.threads, note)
    for runner in started:
        runner.close()

    results = list(results.values())
    settings = {
        "model": model.name,
        "threads": arguments.threads,
        "cpus": sorted(arguments.cpus) if arguments.cpus else None,
        "rounds": arguments.rounds,
        "isa": arguments.isa,
        "cpu": cpu_name(),
        "sentences": None if not arguments.sentences else {"texts": arguments.texts, "batch": arguments.batch},
    }
    print(f"{model.name}, {arguments.threads} thread(s), {arguments.statistic} of {arguments.rounds} interleaved rounds, {settings['cpu']}" + (f", capped to {arguments.isa}" if arguments.isa else ""))
    print(report.table(results, passes, arguments.statistic))
    print("versions: " + ", ".join(dict.fromkeys(result.version for result in results if result.version)))
    if arguments.json:
        arguments.json.write_text(json.dumps(report.as_json(results, passes, settings), indent=1))
    sys.exit(any(result.failure for result in results))


def cpu_name():
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
