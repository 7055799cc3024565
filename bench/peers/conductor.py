"""Child processes that each hold one loaded engine, and the rounds in which they take turns."""

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field

# A turn makes as many calls as fit in this time (at most MOST_CALLS), so that small shapes are not measured by one call.
TURN_SECONDS, MOST_CALLS = 0.15, 20
# A call that takes longer than this needs none before it that is not timed: it spends no time to speak of on filling the caches again.
LONG_CALL_SECONDS = 2.0
# An engine that takes more than this many times as long as the fastest has one round, and is left out where there are more tokens.
TOO_SLOW = 10
# How long threads of an engine may spin for more work. With several threads, the next turn starts when that is over.
SPIN_SECONDS = 0.02


class RunnerError(Exception):
    """A runner that ended or answered with something else than asked; the message ends with its standard error."""


class Runner:
    """One engine in its own process."""

    def __init__(self, command, threads, cpus, environment):
        limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "RTEN_NUM_THREADS")}
        # Threads of OpenMP spin after a call, Intel's for 200 ms unless told otherwise. They may, while a turn lasts.
        waiting = {"KMP_BLOCKTIME": str(round(1000 * SPIN_SECONDS))}
        self.errors = tempfile.TemporaryFile("w+")
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                text=True,
                env={**os.environ, **limits, **waiting, "RUST_BACKTRACE": "0", **environment},
                preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None,
            )
        except OSError as error:
            raise RunnerError(f"{command[0]}: {error.strerror}") from None
        self.version = self.receive("ready")

    def receive(self, key):
        line = self.process.stdout.readline()
        try:
            return json.loads(line)[key]
        except (json.JSONDecodeError, KeyError, TypeError):
            self.close()
            self.errors.seek(0)
            tail = " | ".join(line.strip() for line in self.errors.read().strip().splitlines()[-3:])
            raise RunnerError(f"exit code {self.process.returncode}: {tail or line.strip() or 'no message'}") from None

    def ask(self, key, **request):
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            pass
        return self.receive(key)

    def embeddings(self, batches):
        return self.ask("embeddings", batches=batches, fixed=False, hidden_states=True)

    def seconds(self, workload, calls, warm_up):
        return self.ask("seconds", batches=workload.batches, fixed=workload.fixed, warm_up=warm_up, repeats=calls)

    def close(self):
        """Ends the process; its standard input at an end is its sign to leave."""
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class Result:
    """What is known of one engine at the end."""

    engine: object
    version: str = ""
    # Mean cosine of its embeddings to the reference's.
    cosine: float | None = None
    # Seconds of every timed call, by workload.
    seconds: dict = field(default_factory=dict)
    # Why it is out, if it is.
    failure: str | None = None
    # The workload at which it was too slow, and how many times as long as the fastest it took there.
    too_slow: tuple | None = None
    # Workloads that it was left out of, by name.
    left_out: list = field(default_factory=list)


def measure(runners, results, workloads, rounds, threads, report):
    """Round after round, every runner of `runners` (by name) runs every workload in its turn; a runner that fails is out.

    Every turn starts with a call that is not timed, unless calls are long: the engine before has left its own data in the caches.
    Workloads with fewer tokens come first, so that an engine that is too slow there need not run the others.
    """
    for workload in sorted(workloads, key=lambda workload: workload.tokens):
        running = {}
        for name, runner in runners.items():
            if results[name].too_slow:
                results[name].left_out.append(workload.name)
            else:
                running[name] = runner
        calls, least = {}, {}
        for number in range(rounds + 1):
            report(f"{workload.name}: round {number} of {rounds}")
            for name in list(running):
                if threads > 1:
                    time.sleep(2 * SPIN_SECONDS)
                try:
                    # The first call of all, which may allocate and compile, counts for nothing but its length.
                    warm_up = 1 if number and least[name] < LONG_CALL_SECONDS else 0
                    seconds = running[name].seconds(workload, calls.get(name, 1), warm_up)
                    if number == 0 and seconds[0] < LONG_CALL_SECONDS:
                        seconds = running[name].seconds(workload, 1, 0)
                except RunnerError as error:
                    results[name].failure = f"{workload.name}: {error}"
                    del running[name], runners[name]
                    continue
                least[name] = min(seconds + [least.get(name, seconds[0])])
                # The first round only finds out how many calls a turn has.
                if number == 0:
                    calls[name] = max(1, min(MOST_CALLS, int(TURN_SECONDS / seconds[0])))
                else:
                    results[name].seconds.setdefault(workload.name, []).extend(seconds)
            # The least, and of two turns: one call may have waited for other work of the machine.
            if number > 0:
                for name in list(running):
                    times = least[name] / min(least.values())
                    if times > TOO_SLOW:
                        results[name].too_slow = (workload.name, times)
                        del running[name]
