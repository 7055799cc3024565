#!/usr/bin/env python3
"""Signals at random moments of the commands that write, and what they leave behind.

    scripts/signal-race.py FEWBIT MODEL [--trials N] [--commands ...] [--signals ...] [--force no|yes|both] [--seed N]

FEWBIT is the program, MODEL a small float model with a tokenizer. Each trial starts a command, sends the signal after a random part of
the time that the command takes, and looks at the output, the directories beside it and the directory of temporary files. INT and HUP go
to the whole process group, as from a terminal, TERM and KILL to the one process; one time in four the signal comes twice. Wrong is

- an output that is neither whole nor absent nor, with --force, the old one;
- exit code 0 without a whole output, and any code that is not the signal's (a signal before the handlers are there ends the process
  itself, which shows as a negative code);
- a process that the command started and that still runs ten seconds later;
- after INT, TERM and HUP: any temporary path, and partial statistics beside whole ones;
- after KILL: an absent output with --force, and temporary paths that the same command, run once more, does not remove.

It prints how often each outcome was seen, one line a combination, and exits 1 if any was wrong. Only the standard library is used.
"""

import argparse
import collections
import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

COMMANDS = ["quantize", "static", "compare", "calibrate", "embed"]
SIGNALS = ["INT", "TERM", "HUP", "KILL"]
WITH_FORCE = ["quantize", "static", "embed"]
TEXTS = [f"the {word} dog sees {number} cats" for number in range(6) for word in ("red", "old", "small", "last")]


def digest(path):
    """The bytes of a file, or of all files in a directory; None if there is nothing."""
    if not path.exists():
        return None
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return [(str(p.relative_to(path.parent)), hashlib.sha256(p.read_bytes()).hexdigest()) for p in files]


class Case:
    """One command: how it is run, and what its outputs are."""

    def __init__(self, program, model, command, force, scratch):
        self.command, self.force = command, force
        self.work, self.temporary, self.old = scratch / "work", scratch / "tmp", scratch / "old"
        texts = scratch / "texts.txt"
        texts.write_text("".join(text + "\n" for text in TEXTS))
        calibration = ["--calibration", str(texts), "--samples", str(len(TEXTS)), "--batch-size", "2"]
        arguments, self.output = {
            "quantize": (["quantize", model, "--method", "dynamic", "-o"], "out"),
            "static": (["quantize", model, "--method", "static", *calibration, "-o"], "out"),
            "compare": (["compare", model, "--methods", "dynamic,nf4", "--texts", str(texts), "--keep"], "keep"),
            "calibrate": (["calibrate", model, *calibration, "--stats"], "stats.json"),
            "embed": (["embed", model, "-i", str(texts), "-o"], "out.npy"),
        }[command]
        self.arguments = [str(program), *arguments, self.output] + (["--force"] if force else [])
        self.environment = dict(os.environ, TMPDIR=str(self.temporary), HF_HUB_OFFLINE="1")
        self.fresh()
        started = time.monotonic()
        self.run()
        self.seconds = time.monotonic() - started
        self.whole = self.parts()
        if force:
            self.make_old(program, model)
            self.fresh()
            started = time.monotonic()
            self.run()
            self.seconds = time.monotonic() - started

    def make_old(self, program, model):
        """Another output of the same kind, which --force replaces."""
        if self.command == "embed":
            self.old.write_text("old embeddings\n")
        else:
            quantize = [str(program), "quantize", model, "--method", "nf4", "-o", str(self.old)]
            subprocess.run(quantize, check=True, capture_output=True, env=self.environment)

    def fresh(self):
        for directory in (self.work, self.temporary):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
        if self.force and self.old.is_dir():
            shutil.copytree(self.old, self.work / self.output)
        elif self.force and self.old.is_file():
            shutil.copy(self.old, self.work / self.output)

    def start(self, *more):
        return subprocess.Popen(
            [*self.arguments, *more],
            cwd=self.work,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, *more):
        child = self.start(*more)
        _, errors = child.communicate()
        if child.returncode != 0:
            sys.exit(f"{' '.join(child.args)}: exit code {child.returncode}: {errors.decode()}")

    def outputs(self):
        """Paths that are each whole or absent."""
        output = self.work / self.output
        if self.command != "compare":
            return [output]
        return sorted(p for p in output.iterdir() if not p.name.startswith(".")) if output.is_dir() else []

    def parts(self):
        return {path.name: digest(path) for path in self.outputs() if path.exists()}

    def state(self):
        found = self.parts()
        if found == self.whole:
            return "whole"
        if not found:
            return "absent"
        old = digest(self.old)
        if self.force and old is not None and [d for _, d in found[self.output]] == [d for _, d in old]:
            return "old"
        if self.command == "compare" and all(self.whole.get(name) == content for name, content in found.items()):
            return "some whole"
        return "BROKEN"

    def litter(self):
        expected = {self.output} | ({self.output + ".partial"} if self.command == "calibrate" else set())
        directories = [self.work] + ([self.work / self.output] if self.command == "compare" else [])
        found = [p for d in directories if d.is_dir() for p in d.iterdir() if p.name.startswith(".") or p.parent == self.work and p.name not in expected]
        return found + list(self.temporary.iterdir())

    def run_again(self):
        """What a killed run left must not be there after another one."""
        more = []
        if self.command == "calibrate" and (self.work / (self.output + ".partial")).exists():
            more = ["--resume"]
        if not self.force:
            for path in self.outputs():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.exists():
                    path.unlink()
        self.run(*more)
        return self.state() == "whole" and not self.litter()


def group_ends(group):
    """Whether all processes of the group are gone within ten seconds."""
    for _ in range(500):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def trial(case, name, chance):
    """The outcome in words, and whether it is wrong."""
    number = getattr(signal, "SIG" + name)
    case.fresh()
    child = case.start()
    # What is written is decided at the end of most commands, and at the beginning of a comparison.
    part = chance.choice([(0.0, 1.1), (0.0, 0.3)] if case.command == "compare" else [(0.0, 1.1), (0.6, 1.05)])
    time.sleep(case.seconds * chance.uniform(*part))
    for _ in range(2 if chance.random() < 0.25 else 1):
        # Not waited for yet, the process is there to be signalled even if it is done.
        (os.killpg if name in ("INT", "HUP") else os.kill)(child.pid, number)
    child.communicate()
    survives = not group_ends(child.pid)
    if survives:
        os.killpg(child.pid, signal.SIGKILL)
    code, state, litter = child.returncode, case.state(), case.litter()
    partial = case.command == "calibrate" and (case.work / (case.output + ".partial")).exists()
    wrong = survives or state == "BROKEN" or (case.force and state == "absent")
    wrong = wrong or code not in (0, -number, 128 + number) or (code == 0 and state != "whole")
    cleaned = ""
    if name == "KILL":
        if litter:
            cleaned = ", removed by the next run" if case.run_again() else ", NOT REMOVED by the next run"
            wrong = wrong or "NOT" in cleaned
    else:
        wrong = wrong or bool(litter) or (partial and state == "whole")
    return f"exit code {code}, {state}{', partial statistics' if partial else ''}{', temporary paths' if litter else ''}{cleaned}{', A PROCESS STILL RUNS' if survives else ''}", wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fewbit", type=pathlib.Path)
    parser.add_argument("model")
    parser.add_argument("--trials", type=int, default=100, help="of each combination")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=COMMANDS)
    parser.add_argument("--signals", nargs="+", choices=SIGNALS, default=SIGNALS)
    parser.add_argument("--force", choices=["no", "yes", "both"], default="both", help="whether an old output stands there")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    model = str(pathlib.Path(options.model).resolve())
    chance = random.Random(options.seed)
    wrong_in_all = 0
    for command in options.commands:
        for force in [False, True]:
            if options.force == ("no" if force else "yes") or (force and command not in WITH_FORCE):
                continue
            with tempfile.TemporaryDirectory() as scratch:
                case = Case(options.fewbit.resolve(), model, command, force, pathlib.Path(scratch))
                for name in options.signals:
                    seen, wrong = collections.Counter(), 0
                    for _ in range(options.trials):
                        outcome, is_wrong = trial(case, name, chance)
                        seen[("WRONG: " if is_wrong else "") + outcome] += 1
                        wrong += is_wrong
                    wrong_in_all += wrong
                    print(f"{command}{' --force' if force else ''}, {name}: {wrong} of {options.trials} wrong", flush=True)
                    for outcome, count in sorted(seen.items()):
                        print(f"  {count:5} {outcome}", flush=True)
    return 1 if wrong_in_all else 0


if __name__ == "__main__":
    sys.exit(main())
