"""Tests of what the README says without running it: its length, its picture, its links, the names in it."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_stays_short_and_opens_with_a_picture() -> None:
    assert len(README.splitlines()) < 200
    name, sentence, picture = README.split("\n\n")[:3]
    assert name == "# finrisk" and re.fullmatch(r"\*\*.+\*\*", sentence)
    assert re.fullmatch(r"!\[[^\]]{20,}\]\(docs/pictures/\w+\.webp\)", picture), "a picture, with words for those who do not see it"


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([\w./-]+)\)", README))))
def test_links_of_the_readme_lead_somewhere(path: str) -> None:
    assert (ROOT / path).exists()


def test_bench_names_modules_that_exist() -> None:
    printed = subprocess.run(["make", "-n", "bench"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = re.search(r"for what in ([\w ]+);", printed)
    assert names
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in names[1].split())
