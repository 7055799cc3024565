"""What is for modules of torch is imported when a module comes, and not before."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

import fewbit


@pytest.fixture
def torch_half(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """In place of ``fewbit.torch.manager``, what is called of it."""
    called: list[Any] = []
    module = types.ModuleType("fewbit.torch.manager")
    module.ModuleQuantizationManager = lambda *given, **named: called.append(("manager", given, named)) or "manager"  # type: ignore[attr-defined]
    module.quantize_module = lambda *given, **named: called.append(("quantize", given, named)) or "module"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fewbit.torch", types.ModuleType("fewbit.torch"))
    monkeypatch.setitem(sys.modules, "fewbit.torch.manager", module)
    return called


def test_what_is_no_path_goes_to_the_half_for_torch(torch_half: list[Any]) -> None:
    model = object()
    assert fewbit.QuantizationManager(model, "dynamic", dtype="qint8") == "manager"
    assert fewbit.quantize_model(model, "dynamic", None, device="cpu") == "module"
    assert torch_half == [
        ("manager", (model, "dynamic"), {"dtype": "qint8"}),
        ("quantize", (model, "dynamic", None), {"device": "cpu"}),
    ]


def test_a_path_does_not(torch_half: list[Any], bare_model: str) -> None:
    assert isinstance(fewbit.QuantizationManager(bare_model), fewbit.QuantizationManager)
    assert torch_half == []
