"""Tests of single objects on servers of each protocol: names, lists, and reads and writes that are whole or do not happen."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from finrisk_assets.objects.addresses import ObjectError, find_address
from finrisk_assets.objects.object_copies import KEEP_UNUSED_S, open_copies
from finrisk_assets.objects.object_store import (
    READ_ATTEMPTS,
    describe_object,
    download,
    find_object,
    list_below,
    list_folder,
    list_objects,
    move_object,
    read_object,
    remove_object,
    upload,
    write_object,
)
from tests.objects.object_servers import CUT, LOST, ObjectServer

PAGE = " ".join((Path(__file__).parents[2] / "docs" / "object-storage.md").read_text("utf-8").split())
NAMES = ("a b.csv", "a#1.csv", "a?x=1.csv", "100%.csv", "a%20b.csv", "export[1].csv", "ünï.csv", "a+b&c.csv")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("s3://bucket/a#b?c%20d[1].csv", "s3://bucket/a#b?c%20d[1].csv"),
        (Path("gs://bucket/key"), "gs://bucket/key"),
        ("abfs://container/key", "abfs://container/key"),
        ("in/export.csv", None),
        (Path("/data/export.csv"), None),
    ],
)
def test_an_address_is_told_from_a_path(text: str | Path, address: str | None) -> None:
    assert find_address(text) == address


@pytest.mark.parametrize("text", ["https://account.blob.core.windows.net/c/x?sig=secret", "s3://key:secret@bucket/x", "abfs://c@secret/x"])
def test_an_address_of_another_kind_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ObjectError) as refused:
        find_address(text)
    assert "secret" not in str(refused.value) and "\n" not in str(refused.value)


def test_objects_of_odd_names_arrive_as_they_left(bucket: str, scratch: Path) -> None:
    for name in NAMES:
        upload(scratch / "file.bin", f"{bucket}/raw files/{name}")
    listed = list_objects(f"{bucket}/raw files/*")
    assert [stored.name for stored in listed] == sorted(NAMES)
    assert list_below(f"{bucket}/raw files") == listed
    assert [stored.name for stored in list_objects(f"{bucket}/raw files/a*.csv")] == sorted(name for name in NAMES if name[0] == "a")
    for stored in listed:
        assert download(stored.address, scratch / "copy") == stored
        assert (scratch / "copy").read_bytes() == (scratch / "file.bin").read_bytes()
    move_object(f"{bucket}/raw files/a#1.csv", f"{bucket}/raw files/b#1.csv")
    remove_object(f"{bucket}/raw files/a b.csv")
    remove_object(f"{bucket}/raw files/a b.csv")
    assert [stored.name for stored in list_folder(f"{bucket}/raw files")] == sorted({*NAMES, "b#1.csv"} - {"a#1.csv", "a b.csv"})


def test_a_version_changes_with_the_content(bucket: str) -> None:
    write_object(b"one", f"{bucket}/x")
    first = describe_object(f"{bucket}/x")
    assert describe_object(f"{bucket}/x") == first
    write_object(b"two", f"{bucket}/x")
    assert describe_object(f"{bucket}/x").version != first.version


def test_a_missing_object_is_told_in_a_sentence(bucket: str, scratch: Path) -> None:
    assert find_object(f"{bucket}/none") is None and list_folder(f"{bucket}/none") == list_below(f"{bucket}/none") == []
    for address in (f"{bucket}/none", f"{bucket}-none/x"):
        with pytest.raises(ObjectError, match=f"^there is no object {address}; check the name and the bucket$"):
            download(address, scratch / "copy")
    with pytest.raises(ObjectError, match=r"^no object is called .*; put one there, or mend the name$"):
        list_objects(f"{bucket}/*.csv")
    assert [file.name for file in scratch.iterdir()] == ["file.bin"]


def test_an_object_that_changes_while_it_is_read_is_read_again(server: ObjectServer, bucket: str, scratch: Path) -> None:
    write_object(b"old" * 1000, f"{bucket}/export.csv")
    changes = iter([b"new" * 1000])

    def change_before_reading(method: str, path: str) -> None:
        if method == "GET" and _reads_content(server, path) and (content := next(changes, None)):
            write_object(content, f"{bucket}/export.csv")

    with server.proxy.watched(_once_at_a_time(change_before_reading)):
        read = download(f"{bucket}/export.csv", scratch / "copy")
    assert (scratch / "copy").read_bytes() == b"new" * 1000
    assert read == describe_object(f"{bucket}/export.csv")


def test_an_object_that_goes_on_changing_is_refused(s3: ObjectServer, s3_bucket: str, scratch: Path) -> None:
    write_object(b"0", f"{s3_bucket}/export.csv")
    count = iter(range(1, 1000))
    assert f"{READ_ATTEMPTS} times in all".replace("3", "three") in PAGE

    def change_before_reading(method: str, path: str) -> None:
        if method == "GET" and _reads_content(s3, path):
            write_object(str(next(count)).encode(), f"{s3_bucket}/export.csv")

    with (
        s3.proxy.watched(_once_at_a_time(change_before_reading)),
        pytest.raises(ObjectError, match=r"export.csv goes on changing while it is read: read it again when its writer has ended$"),
    ):
        download(f"{s3_bucket}/export.csv", scratch / "copy")
    assert next(count) == READ_ATTEMPTS + 1
    assert [file.name for file in scratch.iterdir()] == ["file.bin"]


def test_a_version_in_a_name_is_refused(s3_bucket: str) -> None:
    for act in (read_object, list_objects):
        with pytest.raises(ObjectError, match=r"has \?versionId= in its name, which s3fs would read as a version: rename the object"):
            act(f"{s3_bucket}/x.csv?versionId=1")


@pytest.mark.parametrize("fault", [LOST, CUT])
def test_a_store_that_is_lost_while_it_is_read_leaves_nothing_and_is_read_when_it_is_back(
    s3: ObjectServer, s3_bucket: str, scratch: Path, fault: str
) -> None:
    upload(scratch / "file.bin", f"{s3_bucket}/export.csv")
    (scratch / "copy").write_bytes(b"the last one")
    with (
        s3.proxy.watched(lambda method, path: fault if method == "GET" else None),
        pytest.raises(ObjectError, match=r"^s3://\S+/export.csv cannot be read: its store does not answer as it should \(\w+\); try again"),
    ):
        download(f"{s3_bucket}/export.csv", scratch / "copy")
    assert (scratch / "copy").read_bytes() == b"the last one" and len(list(scratch.iterdir())) == 2
    download(f"{s3_bucket}/export.csv", scratch / "copy")
    assert (scratch / "copy").read_bytes() == (scratch / "file.bin").read_bytes()


def test_denied_access_is_told_without_the_credentials(s3_bucket: str, scratch: Path) -> None:
    import boto3

    upload(scratch / "file.bin", f"{s3_bucket}/x")
    name = s3_bucket.removeprefix("s3://")
    denial = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{name}/*"}
    boto3.client("s3").put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [denial]}))
    for action in (lambda: download(f"{s3_bucket}/x", scratch / "copy"), lambda: write_object(b"", f"{s3_bucket}/y")):
        with pytest.raises(ObjectError, match="access is denied; check the rights and the credentials of this process") as refused:
            action()
        assert "testing" not in str(refused.value)


def test_more_objects_than_a_page_of_a_list_are_all_found(s3_bucket: str) -> None:
    from moto.s3.models import s3_backends

    store, name = s3_backends["123456789012"]["aws"], s3_bucket.removeprefix("s3://")
    for number in range(1_050):
        store.put_object(name, f"in/{number:04d}.csv", b"x")
    assert [stored.name for stored in list_objects(f"{s3_bucket}/in/*.csv")] == [f"{number:04d}.csv" for number in range(1_050)]


def test_a_version_is_copied_once_and_goes_when_nothing_reads_it(s3: ObjectServer, s3_bucket: str, tmp_path: Path) -> None:
    import os

    write_object(b"one", f"{s3_bucket}/x.csv")
    first = describe_object(f"{s3_bucket}/x.csv")
    for _ in range(2):
        s3.proxy.requests.clear()
        with open_copies([first], tmp_path) as (copy,):
            assert (copy.name, copy.read_bytes()) == ("x.csv", b"one")
    assert s3.proxy.requests == []
    write_object(b"two", f"{s3_bucket}/x.csv")
    with open_copies([first], tmp_path) as (same,):
        assert same == copy
    old = copy.stat().st_mtime - KEEP_UNUSED_S - 60
    assert KEEP_UNUSED_S == 7 * 86_400 and "nothing has read for seven days" in PAGE
    os.utime(copy.parent, (old, old))
    with open_copies([describe_object(f"{s3_bucket}/x.csv")], tmp_path) as (new,):
        assert new.read_bytes() == b"two" and not copy.exists()


def test_an_error_names_the_object_and_not_its_copy(s3_bucket: str, tmp_path: Path) -> None:
    write_object(b"one", f"{s3_bucket}/x.csv")
    with (
        pytest.raises(ValueError, match=rf"^{s3_bucket}/x.csv is wrong$"),
        open_copies(list_objects(f"{s3_bucket}/x.csv"), tmp_path) as (copy,),
    ):
        raise ValueError(f"{copy} is wrong")


def test_without_the_packages_a_sentence_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['s3fs'] = None\nfrom finrisk_assets.cli.main import cli\ncli(['check', 's3://bucket/mapping.yaml'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "Error: s3:// is read with s3fs, which is not installed: run `make objects`\n"


def _reads_content(server: ObjectServer, path: str) -> bool:
    """Return whether a GET reads an object, and not its description or a list."""
    return {"s3": "list-type" not in path, "gs": "/o/" in path and "alt=media" in path, "abfs": "comp=" not in path}[server.scheme]


def _once_at_a_time(change):
    """Return a watch that does not see the requests that it makes itself."""
    is_changing = False

    def watch(method: str, path: str) -> None:
        nonlocal is_changing
        if not is_changing:
            is_changing = True
            try:
                change(method, path)
            finally:
                is_changing = False

    return watch


def test_a_small_object_is_read_whole(bucket: str) -> None:
    write_object(b"content", f"{bucket}/x")
    assert read_object(f"{bucket}/x") == b"content"
