"""The process of a stream's worker: models, store, probes and signals around `StreamWorker`."""

import fcntl
import gc
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from bento.decisions.engine import Decisions
from bento.decisions.models import load_champions
from bento.store.database import location
from bento.store.session import open_store
from bento.stream.kafka_clients import StreamError, check_topics
from bento.stream.probe_server import ProbeServer
from bento.stream.stream_metrics import CONTENT_TYPE, StreamMetrics
from bento.stream.worker import StreamWorker
from finrisk_assets.private_files import make_private_folder
from finrisk_assets.settings import Settings

logger = logging.getLogger("finrisk.service")

GC_THRESHOLD = 20_000
"""New objects between two collections of the youngest generation, as in the service."""


def run_process(settings: Settings, bento: str) -> None:
    """Decide messages until SIGTERM or SIGINT.

    Parameters
    ----------
    bento
        The Bento whose models decide, as `bentoml.load` takes it.

    Raises
    ------
    bento.stream.kafka_clients.StreamError
        Where the stream cannot be used as it is configured.
    bentoml.exceptions.BentoMLException
        Where the Bento or its models are missing or refused.
    bento.problems.Problem
        501 where the Bento has no model of transactions.
    """
    import bentoml

    settings = _with_absolute_paths(settings)
    check_topics(settings)
    service = bentoml.load(bento, standalone_load=True)
    champions = load_champions(service.bento, settings.policy)
    settings = replace(settings, source=champions.source)
    metrics = StreamMetrics()
    metrics.shared.register_models(champions.bundles)
    with _exclusive(settings), closing(open_store(settings, meter=metrics.shared, upgrades=settings.store_upgrade or None)) as store:
        decisions = Decisions.of(champions, store, settings.bentoml_home / "models")
        worker = StreamWorker(settings, decisions, metrics)
        address = settings.stream_host, settings.stream_port
        probes = ProbeServer(address, worker.find_faults, worker.is_alive, lambda: (metrics.render(), CONTENT_TYPE))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        gc.set_threshold(GC_THRESHOLD)
        gc.freeze()
        probes.start()
        logger.info("the worker decides on %s; probes on port %d", settings.stream_topic, settings.stream_port)
        try:
            worker.run()
        finally:
            probes.stop()
    logger.info("the worker has ended")


def _with_absolute_paths(settings: Settings) -> Settings:
    """Return the settings with their files and folders as seen from this folder: BentoML goes into the Bento's when it loads it."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    paths: dict[str, Any] = {name: value.absolute() for name, value in values.items() if isinstance(value, Path)}
    return replace(settings, **paths)


@contextmanager
def _exclusive(settings: Settings) -> Iterator[None]:
    """Refuse a second worker on an SQLite store: it has one writer, so two would wait for each other. No-op on PostgreSQL."""
    target = location(settings)
    file = str(target) if not isinstance(target, str) else target.removeprefix("sqlite:///") if target.startswith("sqlite:") else ""
    if not file:
        yield
        return
    make_private_folder(Path(file).parent)
    descriptor = os.open(f"{file}.stream", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StreamError("another worker uses this SQLite store: one is all it can have; set FINRISK_STORE_URL for several") from None
    try:
        yield
    finally:
        os.close(descriptor)
