"""The sources that a ledger can be made from, one module each; `load` finds the one that the settings name."""

from collections.abc import Callable, Mapping
from importlib import import_module

from finrisk_assets.ledger.sources.base import RawTable, Source
from finrisk_assets.ledger.sources.feedback import labelled
from finrisk_assets.settings import Settings

__all__ = ["SOURCES", "RawTable", "Source", "SourceError", "load"]

SOURCES: Mapping[str, str] = {
    name: f"finrisk_assets.ledger.sources.{name}" for name in ("simulator", "handbook", "berka", "taiwan", "karlan_zinman", "mapped")
}
"""Name of a source -> its module, which has a function ``source(settings)``."""


class SourceError(ValueError):
    """A source that cannot be loaded, with what would do."""


def load(settings: Settings) -> Source:
    """Return the source that `settings.source` names, with the labels that analysts gave; only its own module is imported.

    Raises
    ------
    SourceError
        If there is no such source.
    """
    if settings.source not in SOURCES:
        raise SourceError(f"FINRISK_SOURCE={settings.source!r} is no source; choose one of {', '.join(SOURCES)}")
    make: Callable[[Settings], Source] = import_module(SOURCES[settings.source]).source
    return labelled(make(settings), settings.root)
