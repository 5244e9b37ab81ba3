"""The raw files of a source that DVC tracks, and the hash that each ``.dvc`` file names.

DVC itself is not imported: its ``.dvc`` files are YAML. ``docs/reproducibility.md`` says how to track a file.
"""

from pathlib import Path

from finrisk_assets.ledger.sources.source_definition import Source


def read_hashes(source: Source) -> dict[str, str]:
    """Return DVC's hash of each tracked file of a source, by file name (an MD5; that of a folder ends in ``.dir``).

    A file counts as tracked if the file itself, or its folder, was given to ``dvc add``.
    """
    import yaml

    hashes: dict[str, str] = {}
    files = {file for table in source.tables.values() for file in table.files()}
    for file in sorted(file for file in files if isinstance(file, Path)):
        for target in (file, file.parent):
            note = target.with_name(f"{target.name}.dvc")
            if note.is_file():
                outs = (yaml.safe_load(note.read_text(encoding="utf-8")) or {}).get("outs", [])
                hashes |= {str(out["path"]): str(out["md5"]) for out in outs if {"path", "md5"} <= out.keys()}
    return hashes
