"""Tests of sets of files: whole or unchanged, the manifest last, and restored byte for byte."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from finrisk_assets.objects.addresses import ObjectError
from finrisk_assets.objects.file_sets import MANIFEST, list_sets, publish_files, restore_set, store_set
from finrisk_assets.objects.object_store import list_below, read_object, write_object
from tests.objects.object_servers import LOST, ObjectServer


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Return three files of a set by name."""
    return write_files(tmp_path / "first", {"scores.csv": b"1,2\n" * 500, "loans.csv": b"3,4\n", "dictionary.csv": b"5,6\n"})


def write_files(folder: Path, contents: Mapping[str, bytes]) -> dict[str, Path]:
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


def read_all(address: str) -> dict[str, bytes]:
    return {stored.address.removeprefix(f"{address}/"): read_object(stored.address) for stored in list_below(address)}


def assert_is(published: dict[str, bytes], files: Mapping[str, Path]) -> None:
    manifest = json.loads(published.pop(MANIFEST))["files"]
    assert published == {name: file.read_bytes() for name, file in files.items()}
    assert manifest == {name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)} for name, content in published.items()}


def test_a_published_set_is_its_files_and_their_manifest(bucket: str, files: dict[str, Path], tmp_path: Path) -> None:
    write_object(b"another's", f"{bucket}/reports/notes.txt")
    publish_files(files, f"{bucket}/reports")
    published = read_all(f"{bucket}/reports")
    assert published.pop("notes.txt") == b"another's"
    assert_is(published, files)
    fewer = write_files(tmp_path / "second", {"scores.csv": b"7,8\n", "loans.csv": b"3,4\n"})
    publish_files(fewer, f"{bucket}/reports")
    published = read_all(f"{bucket}/reports")
    assert published.pop("notes.txt") == b"another's"
    assert_is(published, fewer)


def test_the_same_set_is_not_written_again(s3: ObjectServer, s3_bucket: str, files: dict[str, Path]) -> None:
    publish_files(files, f"{s3_bucket}/reports")
    s3.proxy.requests.clear()
    publish_files(files, f"{s3_bucket}/reports")
    assert {method for method, _ in s3.proxy.requests} <= {"GET", "HEAD"}


@pytest.mark.parametrize("place", [2, 4, 6, 11])
def test_a_bucket_that_is_lost_in_the_middle_of_an_export_leaves_nothing_that_looks_whole(
    s3: ObjectServer, s3_bucket: str, files: dict[str, Path], tmp_path: Path, place: int
) -> None:
    publish_files(files, f"{s3_bucket}/reports")
    others = write_files(tmp_path / "second", {"scores.csv": b"9,9\n" * 500, "loans.csv": b"7,7\n", "dictionary.csv": b"8,8\n"})
    writes = iter(range(1, 1000))

    def lose(method: str, path: str) -> str | None:
        return LOST if method in ("PUT", "DELETE") and next(writes) >= place else None

    with (
        s3.proxy.watched(lose),
        pytest.raises(ObjectError, match=r"^s3://\S+ cannot be (written|removed): [^\n]+; try again when it does$"),
    ):
        publish_files(others, f"{s3_bucket}/reports")
    torn = read_all(f"{s3_bucket}/reports")
    manifest = json.loads(torn[MANIFEST])["files"]
    for name, file in files.items():
        is_named = manifest[name]["sha256"] == hashlib.sha256(torn[name]).hexdigest()
        assert torn[name] in (file.read_bytes(), others[name].read_bytes())
        assert not is_named or torn[name] == file.read_bytes()
    publish_files(others, f"{s3_bucket}/reports")
    assert_is(read_all(f"{s3_bucket}/reports"), others)


def test_going_back_after_a_lost_export_leaves_the_former_set(
    s3: ObjectServer, s3_bucket: str, files: dict[str, Path], tmp_path: Path
) -> None:
    """Even where the sizes are the same."""
    publish_files(files, f"{s3_bucket}/reports")
    same_size = write_files(tmp_path / "second", {name: bytes(len(file.read_bytes())) for name, file in files.items()})
    with s3.proxy.watched(lambda method, path: LOST if method == "DELETE" else None), pytest.raises(ObjectError):
        publish_files(same_size, f"{s3_bucket}/reports")
    publish_files(files, f"{s3_bucket}/reports")
    assert_is(read_all(f"{s3_bucket}/reports"), files)


def test_a_stored_set_is_restored_byte_for_byte(bucket: str, files: dict[str, Path], tmp_path: Path) -> None:
    named = {f"champions/loan_default/{name}": file for name, file in files.items()}
    store_set("champions/loan_default", named, bucket)
    store_set("snapshots/0a", {"snapshots/0a.parquet": files["loans.csv"]}, bucket)
    assert list_sets(bucket) == ["champions/loan_default", "snapshots/0a"]
    for name in list_sets(bucket) * 2:
        restore_set(name, tmp_path / "home", bucket)
    restored = {file.relative_to(tmp_path / "home").as_posix(): file for file in (tmp_path / "home").rglob("*") if file.is_file()}
    assert {name: file.read_bytes() for name, file in restored.items()} == {
        name: file.read_bytes() for name, file in {**named, "snapshots/0a.parquet": files["loans.csv"]}.items()
    }
    assert {file.stat().st_mode & 0o077 for file in restored.values()} == {0}


def test_a_lost_bucket_leaves_the_former_set(s3: ObjectServer, s3_bucket: str, files: dict[str, Path], tmp_path: Path) -> None:
    store_set("champions/x", files, s3_bucket)
    others = write_files(tmp_path / "second", {name: b"other" for name in files})
    with s3.proxy.watched(lambda method, path: LOST if method == "PUT" and "sets" in path else None), pytest.raises(ObjectError):
        store_set("champions/x", others, s3_bucket)
    restore_set("champions/x", tmp_path / "home", s3_bucket)
    assert (tmp_path / "home" / "loans.csv").read_bytes() == files["loans.csv"].read_bytes()


def test_damaged_content_a_file_in_the_way_and_a_foreign_manifest_are_refused(
    s3_bucket: str, files: dict[str, Path], tmp_path: Path
) -> None:
    store_set("champions/x", files, s3_bucket)
    home = tmp_path / "home"
    home.mkdir()
    (home / "loans.csv").write_bytes(b"mine")
    with pytest.raises(ObjectError, match=r"loans.csv is there already with another content"):
        restore_set("champions/x", home, s3_bucket)
    (home / "loans.csv").unlink()
    sha256 = hashlib.sha256(files["loans.csv"].read_bytes()).hexdigest()
    write_object(b"9,9\n", f"{s3_bucket}/content/{sha256}")
    with pytest.raises(ObjectError, match=r"content/[0-9a-f]+ is damaged: its bytes have another hash"):
        restore_set("champions/x", home, s3_bucket)
    entry = {"sha256": sha256, "size": 4}
    for name in ("../outside", "/etc/outside"):
        write_object(json.dumps({"files": {name: entry}}).encode(), f"{s3_bucket}/sets/foreign.json")
        with pytest.raises(ObjectError, match=r"leads out of the folder"):
            restore_set("foreign", home, s3_bucket)
    write_object(b"[]", f"{s3_bucket}/sets/foreign.json")
    with pytest.raises(ObjectError, match=r"foreign.json is no manifest"):
        restore_set("foreign", home, s3_bucket)
    assert list(home.iterdir()) == []
