"""Compares fewbit's speed with that of other engines: same CPU, same token ids, same number of threads, taking turns.

    bench/peers/run.sh [options]        builds what is needed and runs this

README.md beside this file says what is timed. Exits with 1 if an engine failed or computed something else than the model.
"""

import argparse
import datetime
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy

import conductor
import programs
import random_models
import report
import workloads
from engines import ANY_FAMILY, ENGINES, FEWBIT_RUNNER, LEAST_COSINE, QUICK, REFERENCE, RUST, fewbit_rows

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CHECK_TEXTS = 64
# One batch more for the check, beyond the window of local attention, which no sentence is. Not padded: where a padded query has only
# masked keys in its window, OpenVINO's attention gives NaN.
LONG_CHECK = "2x300"
SHAPES, ROUNDS = ["1x16", "1x128", "8x128", "32x128"], 10
QUICK_SHAPES, QUICK_ROUNDS = ["1x16", "1x128", "8x128"], 3


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    listed = lambda text: text.split(",")
    parser.add_argument("--quick", action="store_true", help=f"unless told otherwise: {', '.join(QUICK)}, at {', '.join(QUICK_SHAPES)}, {QUICK_ROUNDS} rounds")
    parser.add_argument("--sample", type=Path, required=True, help="BERT checkpoint directory in float: what is measured without --model; models of random weights have its tokenizer")
    parser.add_argument("--model", help=f"another checkpoint directory, or a shape, made with random weights: {', '.join(random_models.MODELS)}")
    parser.add_argument("--fewbit", type=Path, help="the fewbit program, which makes the INT8 checkpoint; built unless given")
    parser.add_argument("--fewbit-runner", type=Path, help="fewbit's runner; built unless given")
    parser.add_argument("--rust-runner", type=Path, help="the runner of candle, rten and tract; built unless given")
    parser.add_argument(
        "--other",
        type=named,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="another fewbit, whose rows end in @NAME: a source tree, in which the runner is then built, or a runner; can be given again",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "target/peers", help="folder of converted models")
    parser.add_argument("--calibration", type=Path, required=True, help="texts for static ranges and for the check of embeddings")
    parser.add_argument("--engines", type=listed, help="names, or beginnings of names, with commas between")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpus", type=lambda text: {int(cpu) for cpu in listed(text)}, help="pin every runner to these CPUs: 0,1")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--shapes", type=listed, help="BATCHxTOKENS, with commas between; `none`")
    parser.add_argument("--sentences", type=Path, help="a file of texts, run in batches, sorted by length and in file order")
    parser.add_argument("--texts", type=int, default=512, help="number of texts taken from it, evenly spaced")
    parser.add_argument("--batch", type=int, default=32, help="texts in a batch of sentences")
    parser.add_argument("--isa", choices=["avx2"], help="cap the instruction set of every engine; those that cannot be capped are left out")
    parser.add_argument("--statistic", choices=list(report.STATISTICS), default="median", help="of the timed calls; min on a busy machine")
    parser.add_argument("--json", type=Path, help="write settings and every time here instead of a file in OUT/results named by date, model, threads and CPU")
    arguments = parser.parse_args()
    quick = arguments.quick
    random_model = random_models.MODELS.get(arguments.model)
    if arguments.model and not random_model and not Path(arguments.model).is_dir():
        parser.error(f"--model: expected a directory or one of {', '.join(random_models.MODELS)}, found {arguments.model!r}")
    arguments.shapes = arguments.shapes or (QUICK_SHAPES if quick else random_model.shapes if random_model else SHAPES)
    arguments.rounds = (QUICK_ROUNDS if quick else ROUNDS) if arguments.rounds is None else arguments.rounds
    for name in arguments.engines or []:
        if not any(engine.name.startswith(name) for engine in ENGINES):
            parser.error(f"--engines: no engine starts with {name!r}; there are {', '.join(engine.name for engine in ENGINES)}")
    names = [name for name, _ in arguments.other]
    if len(set(names)) < len(names):
        parser.error(f"--other: expected a name of its own for each, found {', '.join(names)}")
    if arguments.threads < 1 or arguments.rounds < 1 or arguments.batch < 1:
        parser.error("--threads, --rounds and --batch: expected at least 1")
    return arguments


def named(text):
    """NAME=PATH"""
    name, equals, path = text.partition("=")
    if not (re.fullmatch(r"[\w.-]+", name) and equals and Path(path).exists()):
        raise argparse.ArgumentTypeError(f"expected NAME=PATH of something that exists, found {text!r}")
    return name, Path(path).resolve()


def model_directory(arguments):
    """The checkpoint to measure; one of random weights is made the first time."""
    if arguments.model not in random_models.MODELS:
        return Path(arguments.model or arguments.sample).resolve()
    made = (arguments.out / "models" / arguments.model).resolve()
    if not made.exists():
        note(f"writing a model of the shape of {arguments.model}")
        random_models.write(arguments.model, made, arguments.sample)
    return made


def engines_by_default(model, quick):
    """Names, or beginnings of names, for --engines."""
    if json.loads((model / "config.json").read_text()).get("model_type") != "bert":
        return ANY_FAMILY
    return QUICK if quick else [engine.name for engine in ENGINES]


def note(text):
    print(text, file=sys.stderr, flush=True)


def chosen(arguments):
    """The engines of --engines, and --other right after this fewbit; with --isa, those that it can cap."""
    others = [row for name, _ in arguments.other for row in fewbit_rows(f"@{name}", f"{FEWBIT_RUNNER}@{name}")]
    known = [engine for engine in ENGINES if engine.runner == FEWBIT_RUNNER]
    engines = [*known, *others, *(engine for engine in ENGINES if engine not in known)]
    engines = [engine for engine in engines if any(engine.name.startswith(name) for name in arguments.engines)]
    if arguments.isa:
        left_out = [engine.name for engine in engines if arguments.isa not in engine.isa]
        if left_out:
            note(f"--isa {arguments.isa}: left out, as nothing caps their instruction set: {', '.join(left_out)}")
        engines = [engine for engine in engines if arguments.isa in engine.isa]
    return engines


def built(engines, arguments):
    """The fewbit program and the paths of the runners that `engines` need, built unless they were given."""
    needed = {engine.runner for engine in engines}
    runners = {f"{FEWBIT_RUNNER}@{name}": programs.other_fewbit(path) for name, path in arguments.other}
    fewbit, own = arguments.fewbit, arguments.fewbit_runner
    if any(name.split("@")[0] == FEWBIT_RUNNER for name in needed) and not (fewbit and own):
        program, runner = programs.fewbit(ROOT)
        fewbit, own = fewbit or program, own or runner
    runners[FEWBIT_RUNNER] = own
    if RUST in needed:
        runners[RUST] = arguments.rust_runner or programs.rust_engines(ROOT)
    return fewbit, runners


def start(engine, arguments, runners, model, out):
    command = engine.command(model, out, runners, arguments.threads)
    environment = engine.isa[arguments.isa] if arguments.isa else {}
    return conductor.Runner(command, arguments.threads, arguments.cpus, environment)


def convert_all(engines, arguments, fewbit, model, out):
    """Runs convert.py once for each conversion, so that one that breaks takes only its own engines out, and none starts with the memory
    that another took. Returns failures by conversion."""
    failures = {}
    for name in dict.fromkeys(engine.conversion for engine in engines if engine.conversion):
        note(f"conversion: {name}")
        command = [sys.executable, HERE / "convert.py", model, out, "--calibration", arguments.calibration, "--only", name]
        command += ["--fewbit", fewbit] if fewbit else []
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            failures[name] = f"conversion {name}: " + " | ".join(done.stderr.strip().splitlines()[-3:])
            note(done.stderr)
    return failures


def mean_cosine(rows, reference):
    """Of the texts, or of the long sequences where that is less."""
    cosines = (numpy.array(rows) * numpy.array(reference)).sum(1)
    return float(min(cosines[:CHECK_TEXTS].mean(), cosines[CHECK_TEXTS:].mean()))


def main():
    arguments = parse()
    model = model_directory(arguments)
    arguments.engines = arguments.engines or engines_by_default(model, arguments.quick)
    out = arguments.out / "converted" / model.name
    engines = chosen(arguments)
    fewbit, programs_of_runners = built(engines, arguments)

    passes = [workloads.shape(text) for text in arguments.shapes if text != "none"]
    if arguments.sentences:
        passes += workloads.sentences(workloads.tokenize(model, workloads.read_texts(arguments.sentences, arguments.texts)), arguments.batch)
    check = workloads.tokenize(model, workloads.read_texts(arguments.calibration, CHECK_TEXTS))
    check = [check[start : start + 32] for start in range(0, len(check), 32)]
    check += workloads.shape(LONG_CHECK).batches

    failures = convert_all(engines, arguments, fewbit, model, out)
    reference_engine = next(engine for engine in ENGINES if engine.name == REFERENCE)
    reference_runner = start(reference_engine, arguments, programs_of_runners, model, out)
    reference = reference_runner.embeddings(check)
    reference_runner.close()

    results, runners = {}, {}
    for engine in engines:
        result = results[engine.name] = conductor.Result(engine, failure=failures.get(engine.conversion))
        if result.failure:
            continue
        note(f"starting: {engine.name}")
        try:
            runner = start(engine, arguments, programs_of_runners, model, out)
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
    now = datetime.datetime.now(datetime.timezone.utc)
    settings = {
        "date": now.isoformat(timespec="seconds"),
        "commit": programs.commit(ROOT),
        "others": {name: {"path": str(path), "commit": programs.commit(path)} for name, path in arguments.other},
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
    file = arguments.json or results_file(arguments, model, now, settings["cpu"])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report.as_json(results, passes, settings), indent=1))
    print(f"every time: {file}")
    sys.exit(any(result.failure for result in results))


def results_file(arguments, model, now, cpu):
    """2026-01-31T1205Z-all-MiniLM-L6-v2-1-threads-Intel-Xeon-Platinum-8488C.json"""
    words = re.sub(r"\((R|TM|C)\)|\bCPU\b|@.*", " ", cpu)
    parts = [f"{now:%Y-%m-%dT%H%MZ}", model.name, f"{arguments.threads}-threads", *words.split()]
    return arguments.out / "results" / (re.sub(r"[^\w.-]+", "-", "-".join(parts)) + ".json")


def cpu_name():
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
