"""The definition of a model's feature: its name, unit, meaning, and the sentences that explain it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from schemas.ledger import Column, Table


@dataclass(frozen=True)
class Feature:
    """One input of a model.

    Attributes
    ----------
    name, unit, description
        As in the feature table and in the bundle.
    raises, lowers
        Plain sentences for a reason code, used when this feature raised, or lowered, the risk of a decision.
    monotone
        ``1`` where risk never falls as the feature grows, ``-1`` where it never rises, ``0`` where neither is certain.
    theme
        The subject in words ("late payments"). Features that say nearly the same share a theme and count as one reason together.
    """

    name: str
    unit: str
    description: str
    raises: str = ""
    lowers: str = ""
    monotone: Literal[-1, 0, 1] = 0
    theme: str = ""

    @property
    def factor(self) -> str:
        """The group in which the feature counts as a reason: its theme, else its sentence, else its name."""
        return self.theme or self.raises or self.name


def themes(groups: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the theme of each feature, from the features of each theme.

    Raises
    ------
    ValueError
        If a feature has two themes.
    """
    theme_of: dict[str, str] = {}
    for theme, names in groups.items():
        twice = sorted(theme_of.keys() & set(names))
        if twice:
            raise ValueError(f"{', '.join(twice)}: under {theme!r} and under {theme_of[twice[0]]!r}; a feature has one theme")
        theme_of |= dict.fromkeys(names, theme)
    return theme_of


def feature_table(domain: str, keys: tuple[Column, ...], features: tuple[Feature, ...]) -> Table:
    """Return the contract of ``features_<domain>``: the columns that identify a row, then one nullable number per feature."""
    columns = (Column(f.name, "float64", f.description, f.unit, nullable=True, personal="personal") for f in features)
    return Table(f"features_{domain}", f"Inputs of the {domain.replace('_', ' ')} model.", (*keys, *columns), key=keys[0].name)
