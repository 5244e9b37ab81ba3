"""The sources of a ledger, one module each; `load` returns the source that the settings name."""

from collections.abc import Callable, Mapping
from importlib import import_module

from finrisk_assets.ledger.sources.feedback import with_feedback_labels
from finrisk_assets.ledger.sources.source_definition import RawTable, Source
from finrisk_assets.objects.addresses import find_address
from finrisk_assets.settings import Settings

__all__ = ["BUILT_IN", "SOURCES", "RawTable", "Source", "SourceError", "load"]

SOURCES: Mapping[str, str] = {
    name: f"finrisk_assets.ledger.sources.{name}"
    for name in (
        "simulator",
        "handbook",
        "berka",
        "taiwan",
        "karlan_zinman",
        "mapped",
    )
}
"""Name of a source -> its module, which has a function ``source(settings)``."""

BUILT_IN = tuple(name for name in SOURCES if name != "mapped")
"""Names of the sources whose tables and features are known without a user's file."""


class SourceError(ValueError):
    """An error for an unknown source; it lists the known ones."""


def load(settings: Settings) -> Source:
    """Return the source that `settings.source` names, with the labels of analysts added; only its own module is imported.

    Raises
    ------
    SourceError
        If `settings.source` names no known source, a mapping has the name of a built-in one, or the files of a built-in one would be in
        a bucket.
    """
    if settings.source not in SOURCES:
        raise SourceError(f"FINRISK_SOURCE={settings.source!r} is no source; choose one of {', '.join(SOURCES)}")
    if settings.source not in ("simulator", "mapped") and find_address(settings.data_dir):
        raise SourceError(f"only a mapped source reads files in a bucket: set FINRISK_DATA_DIR to the folder of {settings.source}'s files")
    make: Callable[[Settings], Source] = import_module(SOURCES[settings.source]).source
    source = make(settings)
    if settings.source == "mapped" and source.name in SOURCES:
        raise SourceError(f"the mapping {settings.mapping} has the name {source.name} of a built-in source; give it another name")
    return with_feedback_labels(source, settings.root)
