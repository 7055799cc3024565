"""Processes of their own to measure models in."""

from __future__ import annotations

import sys

from fewbit import _fewbit

# The native half alone: neither numpy nor this package is in the memory of the process that is measured.
_PROGRAM = """
import importlib.machinery, importlib.util, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
loader = importlib.machinery.ExtensionFileLoader("_fewbit", sys.argv[1])
module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("_fewbit", sys.argv[1], loader=loader))
loader.exec_module(module)
module.measure_one_model()
"""


def measuring_process(isolated: bool) -> list[str] | None:
    """The program and the arguments of a process that measures a model; ``None``: models are measured in this one.

    Raises:
        ValueError: This interpreter is no program.
    """
    if not isolated:
        return None
    if not sys.executable:
        raise ValueError("isolated: expected a Python program to start, found an interpreter inside another\n  hint: isolated=False")
    return [sys.executable, "-I", "-S", "-c", _PROGRAM, _fewbit.__file__]
