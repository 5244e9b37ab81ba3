"""The book as static pages: `python -m book.pages` builds it into `.book/site`, and fails on a link that leads nowhere.

The pages keep the places that they have in the repository, so a link works in the repository and in the book alike. What the pages link
to beside pages, such as an example of a mapping, is copied with them. The navigation is in `zensical.toml` beside this module.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
CONFIGURATION = Path(__file__).with_name("zensical.toml")
PATTERNS = ("*.md", "docs/**/*.md", "finrisk_assets/domains/*/README.md")
"""The repository's files that are pages of the book."""
LINK = re.compile(r"\]\(([^)\s]+)\)")


class BookError(Exception):
    """A book with a broken link, an anchor that is not there, or a page that is not in the navigation."""


def list_pages(root: Path = ROOT) -> list[str]:
    """Return the paths of all pages of the book, relative to the repository."""
    return sorted(page.relative_to(root).as_posix() for pattern in PATTERNS for page in root.glob(pattern))


def list_linked_files(root: Path = ROOT) -> list[str]:
    """Return the paths of the files that pages link to or show, and that are no pages themselves."""
    files = set()
    for page in list_pages(root):
        for link in LINK.findall((root / page).read_text(encoding="utf-8")):
            target = (root / page).parent / link.split("#")[0]
            if "://" not in link and target.suffix != ".md" and target.is_file():
                files.add(target.resolve().relative_to(root.resolve()).as_posix())
    return sorted(files)


def build_book(folder: Path, root: Path = ROOT) -> Path:
    """Build the book.

    Parameters
    ----------
    folder
        Folder of the copied pages and of the built site; what an earlier build left there is replaced.
    root
        The repository.

    Returns
    -------
    Path
        The folder of the site.

    Raises
    ------
    BookError
        If a link or an anchor leads nowhere.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name in [*list_pages(root), *list_linked_files(root)]:
        copy = folder / "pages" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, copy)
    shutil.copyfile(CONFIGURATION, folder / CONFIGURATION.name)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        report = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr).split("Traceback")[0]
        raise BookError(f"the book was not built:\n{report}")
    return folder / "site"


@click.command()
def main() -> None:
    """Build the book into .book/site."""
    try:
        site = build_book(ROOT / ".book")
    except BookError as error:
        raise click.ClickException(str(error)) from None
    print(f"Open {site / 'index.html'}; for its search serve it: python3 -m http.server --directory {site.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
