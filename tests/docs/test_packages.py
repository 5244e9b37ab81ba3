"""Tests of what the pages say of packages: their licences, their sizes and what they depend on."""

import re
from importlib.metadata import files, metadata, requires, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LGPL, BSD, APACHE = r"LGPL|Lesser General Public License", r"BSD", r"Apache-2\.0"


def text_of(page: str) -> str:
    return " ".join((ROOT / "docs" / page).read_text("utf-8").split())


@pytest.mark.parametrize(
    ("page", "sentence", "packages", "licence"),
    [
        ("engines.md", "The driver, psycopg 3, is under the LGPL", ("psycopg", "psycopg-binary"), LGPL),
        ("engines.md", "whose driver, psycopg 2, is under the LGPL too", ("psycopg2-binary",), LGPL),
        ("orchestration.md", "dagster-postgres (Apache-2.0) and its driver psycopg2, under the LGPL", ("psycopg2-binary",), LGPL),
        ("orchestration.md", "dagster-postgres (Apache-2.0)", ("dagster-postgres",), APACHE),
        ("orchestration.md", "`K8sRunLauncher` of dagster-k8s, Apache-2.0", ("dagster-k8s",), APACHE),
        ("object-storage.md", "s3fs, gcsfs and adlfs, all under the BSD licence", ("fsspec", "s3fs", "gcsfs", "adlfs"), BSD),
    ],
)
def test_a_licence_is_that_of_the_installed_package(page: str, sentence: str, packages: tuple[str, ...], licence: str) -> None:
    assert sentence in text_of(page)
    for package in packages:
        about = metadata(package)
        stated = [about.get("License-Expression"), about.get("License"), *(about.get_all("Classifier") or ())]
        assert re.search(licence, "\n".join(filter(None, stated))), package


def test_spark_is_as_large_as_the_pages_say() -> None:
    n_bytes = sum(Path(str(file.locate())).stat().st_size for file in files("pyspark") or ())
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for text, sentence in ((text_of("engines.md"), r"adds it to the environment \((\d+) MB\)"), (makefile, r"Install Spark \((\d+) MB\)")):
        (stated,) = re.findall(sentence, text)
        assert n_bytes == pytest.approx(int(stated) * 10**6, rel=0.1)


def test_pipes_have_no_dependencies() -> None:
    assert "`dagster_pipes`, a package without dependencies" in text_of("engines.md")
    assert [each for each in requires("dagster-pipes") or () if "extra ==" not in each] == []


def test_the_chart_of_dagster_has_the_version_of_the_installed_package() -> None:
    for file in ("docs/orchestration.md", "deploy/dagster/values.yaml"):
        assert f"dagster/dagster --version {version('dagster')} " in (ROOT / file).read_text("utf-8")
