"""The command `finrisk doctor`: whether this machine, its folders and the settings are fit, and what to do where one is not."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from bento.cli.output import AS_JSON, print_json, print_table
from finrisk_assets.cli import prerequisites
from finrisk_assets.settings import Settings, SettingsError

OK, NOTE, FAULT = "ok", "note", "FAULT"
"""States of a check: fit; something that a part of the product lacks; something that stops the demonstration."""

NEEDED_DISK_GB = 1.0
"""Free space that the demonstration's data need, gigabytes; the environment is there already."""
NEEDED_MEMORY_GB = 3.0
"""Memory of the demonstration on 2,000 customers, gigabytes."""
PORTS = (3000, 3001, 3002, 3003)
"""Ports of the servers, in the order in which `make up` takes them."""
JAVA_RELEASE = 17
PYTHONS = ((3, 11), (3, 13))


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    name, state
        Name of the thing, and one of `OK`, `NOTE` and `FAULT`.
    seen, advice
        What it is like, and what to do; empty where nothing is to be done.
    """

    name: str
    state: str
    seen: str
    advice: str = ""


@click.command()
@AS_JSON
@click.pass_obj
def doctor(settings: Settings, as_json: bool) -> None:
    """Check the machine, ports, Java, disk, permissions, settings and what there is of this source; exit 1 where something is at fault."""
    checks = list(run_checks(settings))
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        print_table(("", "what", "seen"), [(check.state, check.name, check.seen) for check in checks])
        for check in checks:
            if check.advice:
                click.echo(f"\n{check.name}: {check.advice}")
    sys.exit(1 if any(check.state == FAULT for check in checks) else 0)


def run_checks(settings: Settings) -> Iterator[Check]:
    """Yield each check; none creates a file that stays."""
    yield _python()
    yield _memory()
    yield _disk(settings.home)
    yield _permissions(settings)
    yield _environment()
    checked = _settings(settings)
    yield checked
    if checked.state == OK:
        yield _source(settings)
    yield _java()
    yield from _ports()
    yield _demo(settings)


def _python() -> Check:
    version = sys.version_info[:2]
    seen = f"{sys.version.split()[0]}, {os.cpu_count()} processors"
    if PYTHONS[0] <= version <= PYTHONS[1]:
        return Check("Python", OK, seen)
    return Check("Python", FAULT, seen, "finrisk needs Python 3.11 to 3.13: install one, remove .venv and run `make setup`")


def _memory() -> Check:
    import psutil  # type: ignore[import-untyped]

    free = psutil.virtual_memory().available / 1e9
    seen = f"{free:.1f} GB free"
    if free >= NEEDED_MEMORY_GB:
        return Check("memory", OK, seen)
    advice = f"the demonstration needs about {NEEDED_MEMORY_GB:g} GB: end other programs, or set FINRISK_SIM_CUSTOMERS=600"
    return Check("memory", NOTE, seen, advice)


def _disk(home: Path) -> Check:
    folder = _existing(home)
    free = shutil.disk_usage(folder).free / 1e9
    seen = f"{free:.1f} GB free at {folder}"
    if free >= NEEDED_DISK_GB:
        return Check("disk", OK, seen)
    return Check(
        "disk", FAULT, seen, f"the demonstration's data need {NEEDED_DISK_GB:g} GB: free some, or set FINRISK_HOME to another disk"
    )


def _settings(settings: Settings) -> Check:
    from finrisk_assets.ledger.sources import SourceError
    from finrisk_assets.policy.policy_file import PolicyError
    from schemas.mapping import MappingError

    try:
        prerequisites.check_settings(settings)
    except (SettingsError, SourceError, MappingError, PolicyError) as error:
        return Check("settings", FAULT, f"source {settings.source}, home {settings.home}", str(error))
    return Check("settings", OK, f"source {settings.source}, home {settings.home}")


def _permissions(settings: Settings) -> Check:
    root, who = settings.root, "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    if root.is_dir() and root.stat().st_mode & 0o077:
        return Check("privacy", NOTE, f"{root} is open to other users of this machine", f"run `chmod 700 {root}`")
    return Check("privacy", OK, f"{root} is of {who} alone" if root.is_dir() else "there are no data yet")


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest folder above it that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _environment() -> Check:
    programs = [name for name in ("dagster", "bentoml", "mlflow") if not Path(sys.executable).with_name(name).exists()]
    if programs:
        return Check("environment", FAULT, f"{', '.join(programs)} missing", "run `make setup`")
    return Check("environment", OK, str(Path(sys.executable).parent.parent))


def _source(settings: Settings) -> Check:
    from finrisk_assets.domains.registry import domains_of, left_out
    from finrisk_assets.ledger import sources

    source = sources.load(settings)
    missing = [
        raw.table.name for raw in source.tables.values() if any(isinstance(file, Path) and not file.exists() for file in raw.files())
    ]
    seen = f"{source.name}: {len(domains_of(source))} models, {len(left_out(source))} left out"
    if missing:
        return Check("source", FAULT, seen, f"the files of {', '.join(missing)} are not below {settings.data_dir}: set FINRISK_DATA_DIR")
    return Check("source", OK, seen)


def _java() -> Check:
    java = shutil.which("java")
    advice = f"only a warehouse on Spark and `make test` need it: install a JRE {JAVA_RELEASE} (Debian: openjdk-17-jre-headless)"
    if java is None:
        return Check("Java", NOTE, "none", advice)
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    release = re.search(r'version "(?:1\.)?(\d+)', text)
    seen = f"release {release[1]}" if release else "of an unknown release"
    return Check("Java", OK, seen) if release and int(release[1]) >= JAVA_RELEASE else Check("Java", NOTE, seen, advice)


def _ports() -> Iterator[Check]:
    from finrisk_assets.cli import local_servers

    taken = [port for port in PORTS if not local_servers.is_free(port)]
    if not taken:
        yield Check("ports", OK, f"{', '.join(map(str, PORTS))} are free")
    for port in taken:
        free = next(local_servers.find_free_ports(port + 1))
        advice = f"`make up` takes the next free ones; for one server alone run `make serve PORT={free}` or `make dev PORT={free}`"
        yield Check(f"port {port}", NOTE, f"taken by {local_servers.find_holder(port)}", advice)


def _demo(settings: Settings) -> Check:
    if prerequisites.has_bento(settings):
        return Check("Bento", OK, f"built, in {settings.bentoml_home}")
    return Check("Bento", NOTE, "none yet", "run `make demo`")
