"""Time and memory of a model that PyTorch calls."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn

from fewbit.torch.batches import Arguments, batches, samples_of

MEBIBYTE = 1024**2


def tensor_bytes(model: nn.Module) -> tuple[int, int]:
    """Bytes of what a model's ``state_dict`` holds, of parameters and of buffers; tensors that several modules share count once."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    seen: set[tuple[int, int]] = set()
    sizes = [0, 0]
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, torch.Tensor):
            continue
        place = (tensor.untyped_storage().data_ptr(), int(tensor.storage_offset()))
        if tensor.nbytes and place not in seen:
            seen.add(place)
            sizes[name not in parameters] += tensor.nbytes
    return sizes[0], sizes[1]


def benchmark_inference_speed(
    model: nn.Module,
    dataloader: Iterable[Any],
    device: str | torch.device = "cpu",
    num_iterations: int = 100,
    warmup: int = 10,
    use_student_input_ids: bool = False,
) -> dict[str, float]:
    """How long batches take.

    Args:
        model: Any model; it is run in eval mode and without gradients.
        dataloader: Batches as for :func:`fewbit.torch.calibrate`; their first ones, over and over.
        device: Where the model is.
        num_iterations: Batches that are timed.
        warmup: Batches before them.
        use_student_input_ids: Whether ``student_input_ids`` of a batch stand for its ids.

    Returns:
        ``mean_latency_ms``, ``std_latency_ms``, ``min_latency_ms``, ``p50_latency_ms``, ``p90_latency_ms``, ``p95_latency_ms``, ``p99_latency_ms``: of a batch, in milliseconds;
        ``throughput_samples_per_sec``.

    Raises:
        ValueError: No batch, no iteration, or a batch without what the model takes.
    """
    if num_iterations < 1:
        raise ValueError(f"num_iterations: expected at least 1, found {num_iterations}")
    if warmup < 0:
        raise ValueError(f"warmup: expected at least 0, found {warmup}")
    given = _first(model, dataloader, device, num_iterations, use_student_input_ids)
    times: list[float] = []
    samples = 0

    def run(number: int) -> None:
        nonlocal samples
        arguments = given[number % len(given)]
        started = time.perf_counter()
        _call(model, arguments, device)
        if number >= warmup:
            times.append(time.perf_counter() - started)
            samples += samples_of(arguments)

    _in_eval_mode(model, run, warmup + num_iterations)
    milliseconds = numpy.array(times) * 1000
    percentiles = {f"p{percent}_latency_ms": float(numpy.percentile(milliseconds, percent)) for percent in (50, 90, 95, 99)}
    return {
        "mean_latency_ms": float(milliseconds.mean()),
        "std_latency_ms": float(milliseconds.std()),
        "min_latency_ms": float(milliseconds.min()),
        **percentiles,
        "throughput_samples_per_sec": samples / sum(times),
    }


def profile_memory(
    model: nn.Module,
    dataloader: Iterable[Any],
    device: str | torch.device = "cpu",
    num_iterations: int = 10,
    use_student_input_ids: bool = False,
) -> dict[str, float]:
    """The most memory that running batches takes.

    Returns:
        ``peak_memory_mb``: On a CPU the most memory that the process had in RAM meanwhile (its resident set: the model, PyTorch and all
        else), on CUDA the most that PyTorch had allocated. ``model_size_mb``: what the model's ``state_dict`` holds.

    Raises:
        ValueError: No batch, no iteration, or a batch without what the model takes.
    """
    if num_iterations < 1:
        raise ValueError(f"num_iterations: expected at least 1, found {num_iterations}")
    given = _first(model, dataloader, device, num_iterations, use_student_input_ids)
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _reset_peak()
    _in_eval_mode(model, lambda number: _call(model, given[number % len(given)], device), num_iterations)
    peak = torch.cuda.max_memory_allocated(device) if on_cuda else _peak_bytes()
    return {"peak_memory_mb": peak / MEBIBYTE, "model_size_mb": sum(tensor_bytes(model)) / MEBIBYTE}


def _first(model: nn.Module, dataloader: Iterable[Any], device: str | torch.device, count: int, student: bool) -> list[Arguments]:
    return list(batches(model, dataloader, device=device, num_batches=count, use_student_input_ids=student))


def _call(model: nn.Module, arguments: Arguments, device: str | torch.device) -> None:
    positional, named = arguments
    model(*positional, **named)
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _in_eval_mode(model: nn.Module, run: Callable[[int], None], count: int) -> None:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for number in range(count):
                run(number)
    finally:
        model.train(training)


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        # Not Linux, or not allowed: the peak is then that of the whole life of the process.
        pass


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if os.name == "posix":
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return 0
