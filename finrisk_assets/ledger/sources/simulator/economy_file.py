"""The numbers of an economy from a YAML file: any of `Economy` and of its parts, by name."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from finrisk_assets.ledger.sources.simulator.population.economy import Economy
from finrisk_assets.settings import SettingsError

Numbers = TypeVar("Numbers")

NUMBERS_FROM_SETTINGS = {
    "n_customers": "FINRISK_SIM_CUSTOMERS gives it",
    "n_months": "FINRISK_SIM_MONTHS gives it",
    "seed": "FINRISK_SEED gives it",
    "start": "it follows from FINRISK_SIM_MONTHS",
}
"""Numbers that the file may not hold -> where they come from."""


class EconomyError(SettingsError):
    """An error for a file of an economy's numbers; it names the place, the fault and the fix."""


def read_economy(path: Path, economy: Economy) -> Economy:
    """Return the economy with the numbers of a YAML file.

    Parameters
    ----------
    path
        For instance ``fraud_rate: 0.03`` and, nested, ``household: {job_loss_rate: 0.02}``.
    economy
        The numbers that the file leaves out.

    Raises
    ------
    EconomyError
        If the file cannot be read, names an unknown number, or holds an invalid value.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EconomyError(f"there is no file {path}; check FINRISK_SIM_ECONOMY") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise EconomyError(f"{path} cannot be read as YAML: {error}") from None
    try:
        named = {} if values is None else values
        for name in NUMBERS_FROM_SETTINGS.keys() & (named.keys() if isinstance(named, Mapping) else set()):
            raise EconomyError(f"{name} does not stand in this file: {NUMBERS_FROM_SETTINGS[name]}")
        return with_numbers(economy, named, "the file")
    except ValueError as error:
        raise EconomyError(f"{path}: {error}") from None


def with_numbers(numbers: Numbers, replacement: Any, where: str) -> Numbers:
    """Return a dataclass of numbers with the given ones replaced; nested parts may be given in part.

    Raises
    ------
    EconomyError
        If a name is unknown, or a value has another type than the number that it replaces.
    """
    if not isinstance(replacement, Mapping):
        raise EconomyError(f"{where} must hold names and numbers, not {type(replacement).__name__}")
    names = [field.name for field in fields(numbers)]  # type: ignore[arg-type]
    values = {}
    for name, value in replacement.items():
        if name not in names:
            close = get_close_matches(str(name), names, 1)
            advice = f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}"
            raise EconomyError(f"{where} names {name!r}, which is no number of the economy; {advice}")
        values[name] = _value(name, getattr(numbers, name), value)
    return replace(numbers, **values)  # type: ignore[type-var]


def _value(name: str, present: Any, replacement: Any) -> Any:
    """Return the given value in the type of the present one."""
    if is_dataclass(present):
        return with_numbers(present, replacement, name)
    if isinstance(present, tuple):
        if isinstance(replacement, list) and all(_is_number(value) for value in replacement):
            return tuple(float(value) for value in replacement)
        raise EconomyError(f"{name} must be a list of numbers, not {replacement!r}")
    if isinstance(present, int | float):
        if _is_number(replacement) and (isinstance(present, float) or float(replacement).is_integer()):
            return type(present)(replacement)
        raise EconomyError(f"{name} must be a {'whole ' if isinstance(present, int) else ''}number, not {replacement!r}")
    raise EconomyError(f"{name} is no number")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
