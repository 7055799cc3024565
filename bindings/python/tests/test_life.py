"""Threads, forks, signals and panics: what happens around a call."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy
import pytest
from conftest import order_beside_another_thread, run_python

import fewbit
from fewbit import Encoder, _fewbit

TEXTS = ["the cat sat on the mat", "ann lives in new york", "a", "not the dog"] * 8


@pytest.fixture
def encoder(tiny_model: str) -> Encoder:
    return Encoder.open(tiny_model)


def encode(encoder: Encoder) -> bytes:
    return encoder.encode(TEXTS, threads=2).tobytes()


def test_other_threads_run_during_a_call(encoder: Encoder) -> None:
    ids = numpy.ones((600, 40), int)
    order = order_beside_another_thread(lambda: encoder.forward(ids, threads=1))
    assert order == ["call begins", "other thread", "call ends"]


def test_calls_of_several_threads_at_once_give_the_same_bits(encoder: Encoder) -> None:
    """(pitfall 44)"""
    expected = encoder.encode(TEXTS, threads=1)

    def work(number: int) -> bool:
        found = encoder.encode(TEXTS[number:], batch_size=1 + number, threads=1 + number % 3)
        return numpy.array_equal(found, expected[number:])

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(24)))


def test_a_child_of_a_process_that_ran_a_model_runs_it_too(encoder: Encoder) -> None:
    """With threads, without, and when it drops the model. (pitfall 41)"""
    expected = encode(encoder)
    child = os.fork()
    if child == 0:
        # A thread that does not exist would be waited for without end.
        signal.alarm(60)
        same = encode(encoder) == expected and encoder.encode(TEXTS, threads=1).tobytes() == expected
        same = same and encode(encoder) == expected
        del encoder
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert encode(encoder) == expected


def test_a_child_that_drops_an_inherited_model_ends(encoder: Encoder) -> None:
    """(pitfall 41)"""
    encode(encoder)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        del encoder
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def quantized() -> bytes:
    weight = numpy.random.default_rng(0).standard_normal((512, 512), dtype=numpy.float32)
    codes, scales = _fewbit.quantize_int8(weight, per_tensor=False, threads=2)
    return codes.tobytes() + scales.tobytes()


def test_a_child_of_a_process_that_quantized_quantizes_too() -> None:
    """(pitfall 41)"""
    expected = quantized()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if quantized() == expected else 1)
    assert os.waitpid(child, 0)[1] == 0


_inherited: Encoder | None = None


def encode_inherited(number: int) -> bytes:
    signal.alarm(60)
    assert _inherited is not None
    return encode(_inherited)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_pool_embed(encoder: Encoder, method: str) -> None:
    """Forked ones with the model that they inherit, spawned ones with the one that is pickled to them. (pitfall 41)"""
    global _inherited
    expected, _inherited = encode(encoder), encoder
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.map(encode_inherited, range(4)) if method == "fork" else pool.map(encode, [encoder] * 2)
    assert set(found) == {expected}


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python warns of every fork of a process with threads")
def test_a_subprocess_with_a_function_before_it_gives_no_warning(encoder: Encoder) -> None:
    """(pitfall 42)"""
    encode(encoder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        command = [sys.executable, "-c", "print(1)"]
        found = subprocess.run(command, preexec_fn=os.getpid, capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("1\n", "")


def interrupt(program: str, *arguments: str, until: str) -> tuple[str, str]:
    """Ctrl-C in a terminal, which all processes of the program get, as soon as it has printed a line with ``until``."""
    command = [sys.executable, "-c", program, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    for line in process.stdout:
        if until in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=120)
    assert process.returncode != 0
    return out, error


def test_control_c_ends_a_long_call(tiny_model: str) -> None:
    program = """
import sys, fewbit
native = fewbit.Encoder.open(sys.argv[1])._native
try:
    native.encode(["a b c d e"] * 3_000_000, threads=1, batch_size=8, progress=lambda *told: print(*told, flush=True))
finally:
    print("last", flush=True)
"""
    out, error = interrupt(program, tiny_model, until="texts")
    assert out.endswith("last\n") and error.rstrip().endswith("KeyboardInterrupt")


def test_control_c_ends_a_comparison_and_its_processes(sample_model: str) -> None:
    program = """
import sys, fewbit, fewbit.progress
from fewbit import _fewbit
real = _fewbit.compare
_fewbit.compare = lambda *a, **k: real(*a, **{**k, "progress": lambda *told: print(*told, flush=True)})
fewbit.compare(sys.argv[1], ["fp16"], texts=["some text"] * 20_000)
"""
    _, error = interrupt(program, sample_model, until="encoding")
    assert error.rstrip().endswith("KeyboardInterrupt")


def test_a_panic_is_an_exception_that_asks_to_be_reported(tiny_model: str) -> None:
    """A stack of 64 TiB cannot be had, and the standard library panics where such a thread is started."""
    program = """
import os, sys, fewbit
encoder = fewbit.Encoder.open(sys.argv[1])
try:
    encoder.encode(["a", "b"] * 20, threads=2)
except fewbit.FewbitError as error:
    print("caught:", error)
print(encoder.encode(["a"], threads=1).shape if len(sys.argv) > 2 else "goes on")
"""
    environment = {**os.environ, "RUST_MIN_STACK": str(1 << 46)}
    command = [sys.executable, "-c", program, tiny_model]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert "caught: " in found.stdout and "defect of fewbit" in found.stdout and "goes on" in found.stdout, found


def test_importing_brings_in_numpy_alone_and_starts_no_thread() -> None:
    """What it takes beyond numpy is this package and the standard library; what is for reports comes when it is asked for."""
    program = """
import os, sys, numpy
before, threads = set(sys.modules), len(os.listdir("/proc/self/task"))
import fewbit
third = {name.partition(".")[0] for name in set(sys.modules) - before} - {"numpy", *sys.stdlib_module_names}
own = sorted(name.removeprefix("fewbit.") for name in sys.modules if name.startswith("fewbit."))
print(*own, sorted(third), len(os.listdir("/proc/self/task")) - threads)
"""
    found = run_python(program)
    assert found.stdout.split() == ["_fewbit", "arrays", "encoder", "models", "progress", "threads", "['fewbit']", "0"], found


def test_the_number_of_threads_comes_from_the_call_the_setting_the_environment_then_torch(tiny_model: str) -> None:
    """(pitfall 43)"""
    program = """
import sys, types, fewbit
from fewbit.threads import resolve_threads
torch = types.ModuleType("torch")
torch.get_num_threads = lambda: 7
found = [fewbit.get_num_threads()]
sys.modules["torch"] = torch
found.append(fewbit.get_num_threads())
fewbit.set_num_threads(3)
found.append(fewbit.get_num_threads())
found.append(resolve_threads(5))
fewbit.set_num_threads(None)
found.append(fewbit.get_num_threads())
print(*found)
"""

    def threads(**variables: str) -> list[str]:
        unset = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        command = [sys.executable, "-c", program]
        found = subprocess.run(command, capture_output=True, text=True, env={**unset, **variables}, timeout=120, check=True)
        return found.stdout.split()

    available = str(len(os.sched_getaffinity(0)))
    assert threads()[1:] == ["7", "3", "5", "7"] and int(threads()[0]) <= int(available)
    assert threads(OMP_NUM_THREADS="2") == ["2", "2", "3", "5", "2"]
    assert threads(OMP_NUM_THREADS="2", FEWBIT_NUM_THREADS="4") == ["4", "4", "3", "5", "4"]


def test_numbers_of_threads_that_cannot_be_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in [0, 1025]:
        with pytest.raises(fewbit.FewbitError, match="threads: expected a number of threads from 1 to 1024"):
            fewbit.set_num_threads(number)
    monkeypatch.setenv("FEWBIT_NUM_THREADS", "many")
    with pytest.raises(fewbit.FewbitError, match="FEWBIT_NUM_THREADS: expected a number of threads"):
        fewbit.get_num_threads()


def test_errors_can_be_pickled_to_a_parent() -> None:
    """As workers of pools do."""
    import pickle

    error: Any = pickle.loads(pickle.dumps(fewbit.FewbitError("what\n  hint: why")))
    assert isinstance(error, fewbit.FewbitError) and str(error) == "what\n  hint: why"
