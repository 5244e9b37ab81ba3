"""The definition of a model's feature: its name, unit, meaning, and the sentences that explain it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from schemas.ledger import Column, Table


@dataclass(frozen=True)
class Feature:
    """One input of a model, and what can truly be said of its value.

    A sentence is a claim about the value, and is chosen only where the claim holds (`finrisk_assets.scoring.reasons`).

    Attributes
    ----------
    name, unit, description
        As in the feature table and in the bundle.
    low, high
        Sentences of a value in the lowest, or highest, quarter of the reference group.
    monotone
        ``1`` where risk never falls as the feature grows, ``-1`` where it never rises, ``0`` where neither is certain.
    theme
        The subject in words ("late payments"). Features that say nearly the same share a theme and count as one reason together.
    zero, one, missing
        Sentences of the value 0, of the value 1, and of a value that is missing.
    tells_missing
        Whether anything is said of a missing value. Nothing is where the client left out what it need not send.
    fact
        Sentence that holds of every value: ``{value}`` stands for the value with its unit, ``{number}`` for the value alone and
        ``{month}`` for the month of this number.
    low_below, high_above
        Bounds of the claims themselves: `low` is said only of values below, `high` only of values above.
    is_absolute
        Whether `low` and `high` follow from these bounds alone, whatever the reference group.
    scale
        How the value was transformed: ``log``, ``log1p`` or not at all. Sentences show it in its own unit.
    spoken_by
        The feature that speaks for this one: half of a circle tells nothing by itself.
    missing_codes
        Numbers, of a category texts, that mean in the source's files that there is no value; they mean the same in a request.
    is_category
        Whether the values are texts of a few or many levels, without an order.
    levels
        The levels that training saw, from the highest weight of evidence to the lowest; a model's row has a level's number among them.
    """

    name: str
    unit: str
    description: str
    low: str = ""
    high: str = ""
    monotone: Literal[-1, 0, 1] = 0
    theme: str = ""
    zero: str = ""
    one: str = ""
    missing: str = ""
    tells_missing: bool = True
    fact: str = ""
    low_below: float | None = None
    high_above: float | None = None
    is_absolute: bool = False
    scale: Literal["", "log", "log1p"] = ""
    spoken_by: str = ""
    missing_codes: tuple[float | str, ...] = ()
    is_category: bool = False
    levels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("missing_codes", "levels"):  # lists, where they were read from JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def factor(self) -> str:
        """The group in which the feature counts as a reason: its theme, else its name."""
        return self.theme or self.name


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
    """Return the contract of ``features_<domain>``: the columns that identify a row, then a nullable number or category per feature."""
    columns = (
        Column(f.name, "string" if f.is_category else "float64", f.description, f.unit, nullable=True, personal="personal")
        for f in features
    )
    return Table(f"features_{domain}", f"Inputs of the {domain.replace('_', ' ')} model.", (*keys, *columns), key=keys[0].name)
