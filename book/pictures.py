"""The pictures of README and book: `make pictures`, or `python -m book.pictures`, makes them from a demo's home and a running console.

The console's pages are shown by Debian's chromium at desk width, over a copy of the home in which a month of requests was decided. The
lineage is drawn from the definitions; the SHAP summary is the picture that the champion was registered with.
"""

import io
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from book.demo_month import decide_month
from book.lineage import draw_lineage
from finrisk_assets.cli import local_servers
from finrisk_assets.cli.prerequisites import require_bento
from finrisk_assets.settings import Settings

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
DOMAIN = "loan_default"
"""The domain whose lineage, SHAP summary and model page are shown."""
WIDTH = 1280
"""Pixels of a desk's width; the height is that of each page's part that says most."""
SCALE = 1.25
"""Pixels of a picture for each of the page: more is sharper, and larger."""
QUALITY = 82
MAX_PICTURE_BYTES, MAX_BYTES = 150_000, 1_000_000
"""Largest picture, and all of them together: they are committed."""
READY_S = 120


# A person at the highest risk, and an applicant who is referred but gets an offer: both pages have something to show.
_PERSON = "SELECT customer_id FROM analytics.scores_spending_risk ORDER BY as_of DESC, probability DESC LIMIT 1"
_APPLICANT = """
SELECT loan.customer_id FROM analytics.scores_loan_default loan
JOIN analytics.scores_loan_offers offer ON offer.customer_id = loan.customer_id AND offer.offered_at = loan.applied_at
WHERE loan.decision = 'refer' AND offer.decision = 'offer' ORDER BY loan.applied_at DESC, hash(loan.customer_id) LIMIT 1
"""


def show_overview(page: Any, console: str, settings: Settings) -> None:
    page.goto(f"{console}overview")


def show_alert(page: Any, console: str, settings: Settings) -> None:
    page.goto(f"{console}alerts")
    page.keyboard.press("n")
    page.wait_for_url(re.compile("/alerts/[0-9a-f]{32}"))


def show_person(page: Any, console: str, settings: Settings) -> None:
    page.goto(f"{console}person")
    page.fill("#customer", _find_customer(settings, _PERSON))
    page.click("button:text('Show')")
    page.wait_for_selector("svg.gauge")


def show_loan(page: Any, console: str, settings: Settings) -> None:
    page.goto(f"{console}loan")
    page.fill("#customer_id", _find_customer(settings, _APPLICANT))
    page.fill("#loan_amount", "9000")
    page.click("button:text('Decide')")
    page.wait_for_selector("text=Nearest feasible change")


def show_model(page: Any, console: str, settings: Settings) -> None:
    page.goto(f"{console}models/{DOMAIN}")


PAGES: Mapping[str, tuple[Callable[[Any, str, Settings], None], int]] = {
    "overview": (show_overview, 980),
    "alert": (show_alert, 1025),
    "person": (show_person, 960),
    "loan": (show_loan, 1130),
    "models": (show_model, 860),
}
"""Name of a picture -> what leads a browser to the console's page, and the height in pixels."""


def _find_customer(settings: Settings, query: str) -> str:
    """Return the customer whom a query over the warehouse finds."""
    import duckdb

    with duckdb.connect(str(settings.root / "warehouse.duckdb"), read_only=True) as warehouse:
        row = warehouse.sql(query).fetchone()
    if row is None:
        raise click.ClickException("the demo's ledger has no customer for the pictures: run `FINRISK_SIM_CUSTOMERS=600 make demo` first")
    return str(row[0])


def take_pictures(settings: Settings, folder: Path) -> None:
    """Make every picture of the book.

    Parameters
    ----------
    settings
        A home with a demo, which is copied.
    folder
        Where the pictures are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lineage.svg").write_text(draw_lineage(DOMAIN), encoding="utf-8")
    save_picture(find_shap_summary(settings), folder / "shap.webp")
    with tempfile.TemporaryDirectory(prefix="finrisk-pictures-") as copy:
        shutil.copytree(settings.root, Path(copy) / settings.root.name)
        os.environ |= {"FINRISK_HOME": copy, "FINRISK_CONSOLE": "true"}
        copied = Settings.from_environment()
        print(f"{decide_month(copied)} requests decided in a copy of {settings.root}")
        with _serve(copied) as console, _open_browser() as page:
            for name, (show, height) in PAGES.items():
                page.set_viewport_size({"width": WIDTH, "height": height})
                show(page, console, copied)
                page.wait_for_load_state("networkidle")
                save_picture(page.screenshot(), folder / f"{name}.webp")


def find_shap_summary(settings: Settings) -> bytes:
    """Return the SHAP summary with which the champion of `DOMAIN` was evaluated, a PNG."""
    from finrisk_assets.graph.build import build_resources
    from finrisk_assets.operations.reproduce import find

    _, version = find(settings, DOMAIN, "champion")
    client = build_resources(settings)["tracking"].client()
    return Path(client.download_artifacts(version.run_id, "plots/test_shap.png")).read_bytes()


def save_picture(png: bytes, file: Path) -> None:
    """Write a PNG as a WebP."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").save(file, "WEBP", quality=QUALITY, method=6)
    print(f"{file.name}  {file.stat().st_size / 1000:.0f} kB")


@contextmanager
def _serve(settings: Settings) -> Iterator[str]:
    """Yield the address of the console of a running service."""
    server = local_servers.bento_server(settings, next(local_servers.find_free_ports(3900)))
    with (settings.root / "pictures.log").open("w") as log:
        process = subprocess.Popen(
            [str(word) for word in server.command], env=os.environ | server.environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{server.port}{server.probe}", timeout=2).close()
                break
            time.sleep(0.5)
        else:
            raise click.ClickException(f"the service did not start: {(settings.root / 'pictures.log').read_text()[-500:]}")
        yield f"{server.address}console/"
    finally:
        local_servers.stop_processes([process])


@contextmanager
def _open_browser() -> Iterator[Any]:
    """Yield a page of a browser without a window."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        raise click.ClickException("chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        # A container's root user has no sandbox; the pages are our own.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_page(locale="en-GB", device_scale_factor=SCALE)
        browser.close()


@click.command()
def main() -> None:
    """Make the pictures of README and book from the home of a demo."""
    os.environ |= {"BENTOML_DO_NOT_TRACK": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    settings = Settings.from_environment()
    require_bento(settings)
    take_pictures(settings, FOLDER)


if __name__ == "__main__":
    main()
