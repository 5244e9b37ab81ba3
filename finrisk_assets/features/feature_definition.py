"""The definition of a feature of a domain's table: its words, its expression and the columns that it needs.

Features of single events are declared in `windows` instead, because the service computes those itself.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import ibis.expr.types as ir

from finrisk_assets.features.arithmetic import finite
from schemas.features import Feature

Expression: TypeAlias = Callable[[ir.Table], ir.Value]
"""The value of a feature from the joined rows of a domain."""


@dataclass(frozen=True)
class FeatureDefinition:
    """A feature of a domain's table.

    Attributes
    ----------
    feature
        Name, unit and words.
    value
        Expression over the joined rows; None where the feature follows from other features by a formula.
    needs
        Canonical columns (``table.column``) without which a source has no such feature.
    """

    feature: Feature
    value: Expression | None = None
    needs: tuple[str, ...] = ()

    def compute(self, rows: ir.Table) -> ir.Value:
        """Return the feature of each row as float64, null where it is not finite; without an expression, the column of its name.

        A category stays text.
        """
        expression = self.value or column(self.feature.name)
        if self.feature.is_category:
            return expression(rows)
        return finite(expression(rows).cast("float64"))


def define(
    name: str,
    unit: str,
    description: str,
    low: str,
    high: str,
    value: Expression | None,
    monotone: Literal[-1, 0, 1] = 0,
    *,
    needs: str = "",
    **words: Any,
) -> FeatureDefinition:
    """Define a feature.

    Parameters
    ----------
    name, unit, description, low, high, monotone, words
        As in `schemas.features.Feature`; `words` are its other fields.
    value, needs
        As in `FeatureDefinition`; `needs` names the columns, separated by spaces.
    """
    return FeatureDefinition(Feature(name, unit, description, low, high, monotone, **words), value, tuple(needs.split()))


def with_themes(theme_of: Mapping[str, str], *groups: Iterable[FeatureDefinition]) -> tuple[FeatureDefinition, ...]:
    """Return the definitions of all groups, each with its theme.

    Raises
    ------
    ValueError
        If a feature has no theme.
    """
    definitions = [definition for group in groups for definition in group]
    lacking = [definition.feature.name for definition in definitions if definition.feature.name not in theme_of]
    if lacking:
        raise ValueError(f"the features {', '.join(lacking)} have no theme: add each to a theme of the catalogue")
    features = (replace(definition.feature, theme=theme_of[definition.feature.name]) for definition in definitions)
    return tuple(replace(definition, feature=feature) for definition, feature in zip(definitions, features, strict=True))


def column(name: str) -> Expression:
    """Return the expression that reads one column of the joined rows."""
    return lambda rows: rows[name]


def filled_columns(columns: Mapping[str, Collection[str]]) -> set[str]:
    """Return the columns that a source fills as ``table.column``.

    Parameters
    ----------
    columns
        Canonical table -> the columns that the source *fills*. A column that is there but always null must not be among them.
    """
    return {f"{table}.{name}" for table, names in columns.items() for name in names}


def select_available(definitions: Iterable[FeatureDefinition], filled: Collection[str]) -> tuple[Feature, ...]:
    """Return the features whose columns a source fills, in the order of their definitions."""
    return tuple(definition.feature for definition in definitions if set(definition.needs) <= set(filled))


def check_source_features(
    source_features: Sequence[Feature], definitions: Iterable[FeatureDefinition], table: str, filled: Collection[str]
) -> None:
    """Check the features that are columns of the source's own.

    Parameters
    ----------
    source_features
        The source's own columns of `table` that are features as they stand.
    definitions
        The domain's catalogue.
    table
        Canonical table.
    filled
        The columns that the source fills, as ``table.column``.

    Raises
    ------
    ValueError
        Where a source's feature has the name of a defined feature, or the source does not fill it.
    """
    clash = sorted({feature.name for feature in source_features} & {definition.feature.name for definition in definitions})
    if clash:
        raise ValueError(f"the source's features {', '.join(clash)} are defined here too: rename the source's columns")
    absent = [feature.name for feature in source_features if f"{table}.{feature.name}" not in filled]
    if absent:
        raise ValueError(f"the source names the features {', '.join(absent)}, but fills no such columns of its {table}")
