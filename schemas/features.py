"""What a model's feature is: its name, unit, meaning, and the words that explain it."""

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
        As they stand in the feature table and in the bundle.
    raises, lowers
        Plain sentences for a reason code: said when this feature raised, or lowered, the risk of one decision.
    monotone
        ``1`` where risk never falls as the feature grows, ``-1`` where it never rises, ``0`` where neither is certain.
    theme
        What it tells about, in words ("late payments"): features that nearly say the same share one and are one reason together.
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
        """What it is counted with as a reason: its theme, else those that say the same sentence, else itself."""
        return self.theme or self.raises or self.name


def themes(groups: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Turn themes with their features into features with their theme.

    Raises
    ------
    ValueError
        For a feature under two themes.
    """
    found: dict[str, str] = {}
    for theme, names in groups.items():
        twice = sorted(found.keys() & set(names))
        if twice:
            raise ValueError(f"{', '.join(twice)}: under {theme!r} and under {found[twice[0]]!r}; a feature has one theme")
        found |= dict.fromkeys(names, theme)
    return found


def feature_table(domain: str, keys: tuple[Column, ...], features: tuple[Feature, ...]) -> Table:
    """The contract of ``features_<domain>``: the columns that identify a row, then one nullable number per feature."""
    columns = (Column(f.name, "float64", f.description, f.unit, nullable=True, personal="personal") for f in features)
    return Table(f"features_{domain}", f"Inputs of the {domain.replace('_', ' ')} model.", (*keys, *columns), key=keys[0].name)
