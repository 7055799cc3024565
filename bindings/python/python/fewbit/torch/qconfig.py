"""Which observers see the inputs of layers: by PyTorch's names, as the native observers take them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fewbit import _fewbit

_OBSERVERS = {
    "MinMaxObserver": "min_max",
    "MovingAverageMinMaxObserver": "moving_average_min_max",
    "PerChannelMinMaxObserver": "per_channel_min_max",
    "MovingAveragePerChannelMinMaxObserver": "moving_average_per_channel_min_max",
    "HistogramObserver": "histogram",
}


@dataclass(frozen=True)
class QConfig:
    """An observer for activations and one for weights, by the keys of the command line's observers.

    >>> get_default_qconfig("fbgemm").activation["observer"]
    'histogram'
    """

    activation: dict[str, Any]
    weight: dict[str, Any]

    def to_json(self) -> str:
        """As the native half reads it."""
        return json.dumps({"activation": self.activation, "weight": self.weight})


def get_default_qconfig(backend: str = "x86") -> QConfig:
    """The observers of a backend: ``native`` (fewbit's own), or ``fbgemm``, ``x86``, ``qnnpack``, ``onednn`` as PyTorch has them.

    Raises:
        ValueError: There is no such backend.
    """
    return QConfig(**json.loads(_fewbit.default_qconfig(backend)))


def read_qconfig(qconfig: Any) -> QConfig:
    """``qconfig`` as it is, or of PyTorch's ``torch.ao.quantization.QConfig``.

    Raises:
        TypeError: Neither.
        ValueError: An observer that there is no native one for.
    """
    if isinstance(qconfig, QConfig):
        return qconfig
    if not hasattr(qconfig, "activation") or not hasattr(qconfig, "weight"):
        raise TypeError(
            f"qconfig: expected a QConfig of fewbit or of PyTorch, found {type(qconfig).__name__}\n"
            "  hint: `fewbit.torch.get_default_qconfig(backend)` makes one"
        )
    return QConfig(activation=_observer("activation", qconfig.activation), weight=_observer("weight", qconfig.weight))


def _observer(which: str, factory: Any) -> dict[str, Any]:
    """The settings of what PyTorch's ``Observer.with_args(…)`` or ``Observer`` makes."""
    observer = factory()
    name = type(observer).__name__
    if name not in _OBSERVERS:
        raise ValueError(
            f"qconfig.{which}: expected one of {', '.join(_OBSERVERS)}, found {name}\n"
            "  hint: fewbit's own observers (mse, percentile, entropy) come with `fewbit.torch.QConfig`"
        )
    settings: dict[str, Any] = {
        "observer": _OBSERVERS[name],
        "dtype": str(observer.dtype).removeprefix("torch."),
        "qscheme": str(observer.qscheme).removeprefix("torch."),
    }
    if getattr(observer, "reduce_range", False):
        settings["reduce_range"] = True
    if "moving_average" in settings["observer"]:
        settings["averaging_constant"] = observer.averaging_constant
    if "channel" in settings["observer"] and observer.ch_axis != 0:
        settings["axis"] = observer.ch_axis
    return settings
