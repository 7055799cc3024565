"""What a conversion did with each module, and why."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fewbit.tables import Table

_ATTRIBUTE = "_fewbit_conversion_report"


@dataclass(frozen=True)
class ModuleReport:
    """What became of one module.

    Attributes:
        name: Its path in the model; empty for the model itself.
        type: The name of its class before the conversion.
        action: ``swapped`` (a whole encoder, run by the native executor), ``layers`` (an encoder of which only single layers are converted),
            ``quantized`` (a native layer) or ``float`` (left as it was).
        reason: How it was quantized, or why it was not.
    """

    name: str
    type: str
    action: str
    reason: str


class ConversionReport(list[ModuleReport]):
    """What became of each module that has parameters or was asked for, in the order of the model. Prints as a table."""

    def of(self, name: str) -> ModuleReport:
        """The entry of the module ``name``.

        Raises:
            KeyError: There is none.
        """
        for module in self:
            if module.name == name:
                return module
        raise KeyError(f"{name}: expected one of the modules of the report: {', '.join(module.name for module in self)}")

    def count(self, action: object) -> int:
        """The number of modules with this action."""
        return sum(module.action == action for module in self)

    def _table(self) -> Table:
        rows = [(module.name or "(the model)", module.type, module.action, module.reason) for module in self]
        return Table(("module", "type", "action", "reason"), rows)

    def __str__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()


def report_of(model: nn.Module) -> ConversionReport:
    """The report of the conversion that made ``model``.

    Raises:
        ValueError: No conversion of fewbit made it.
    """
    report = model.__dict__.get(_ATTRIBUTE)
    if not isinstance(report, ConversionReport):
        raise ValueError(
            f"{type(model).__name__}: expected a model that fewbit.torch converted, found one without a report\n"
            "  hint: the report is that of the model that quantize_dynamic or convert returned, not of its parts"
        )
    return report


def attach_report(model: nn.Module, report: ConversionReport) -> None:
    """Keeps ``report`` with ``model``, outside of its ``state_dict``."""
    model.__dict__[_ATTRIBUTE] = report
