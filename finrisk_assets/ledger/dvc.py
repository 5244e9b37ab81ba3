"""Raw files that DVC tracks: which of a source's files have a ``.dvc`` file beside them, and the hash that it names.

DVC itself is never imported: its ``.dvc`` files are YAML. How to track a file stands in ``docs/reproducibility.md``.
"""

from finrisk_assets.ledger.sources.base import Source


def hashes(source: Source) -> dict[str, str]:
    """The files of a source that DVC tracks, by name, with DVC's hash of each (an MD5; of a folder it ends in ``.dir``).

    A file counts as tracked if it, or the folder that it lies in, was given to ``dvc add``.
    """
    import yaml

    found: dict[str, str] = {}
    for file in sorted({file for table in source.tables.values() for file in table.files()}):
        for given in (file, file.parent):
            note = given.with_name(f"{given.name}.dvc")
            if note.is_file():
                outs = (yaml.safe_load(note.read_text(encoding="utf-8")) or {}).get("outs", [])
                found |= {str(out["path"]): str(out["md5"]) for out in outs if {"path", "md5"} <= out.keys()}
    return found
