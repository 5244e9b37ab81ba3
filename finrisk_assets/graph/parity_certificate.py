"""The parity certificate: a replay of the ledger through the service's own history equals the batch path, row for row.

Pure of Dagster. The service is never imported here: `bento.decisions.scorers.parity_replay` runs in processes of its own, one for each
group of customers. A group is a closed world: its merchants have the payments of its customers alone, in the replay and in the batch.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from ibis.expr.types import Table as LazyTable

from finrisk_assets.domains.base import Domain
from finrisk_assets.features.arrivals import Event, plan_arrivals
from finrisk_assets.features.parity import Parity, compare, compute_arrived, list_events
from finrisk_assets.features.windows import DAY, MICRO, to_json
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.training.provenance import REPOSITORY, data_sha256
from finrisk_assets.settings import Settings

GROUP_EVENTS = 50_000
"""Events of a group at least, where the ledger has more than all groups: customers join it until then. More take longer."""
N_GROUPS = 2
"""Groups, replayed at the same time."""
SCORED_EVENTS = 15_000
"""Events of a group whose features are computed, those of whole days; the others make history. More take longer."""
ARRIVED_ROWS = 100
"""Rows of each group that are held to the ledger as it was at their arrival."""
CERTIFICATE = "certificate.json"
_CODE = (
    "bento/decisions/scorers/transaction_features.py",
    "bento/store",
    "finrisk_assets/features",
    "bento/decisions/scorers/parity_replay.py",
    "finrisk_assets/domains/transaction_anomaly/catalogue.py",
    "finrisk_assets/domains/transaction_anomaly/features.py",
    "schemas",
)
"""Files and folders whose code computes a feature on either path."""


class CertificateError(RuntimeError):
    """A certificate that does not allow to serve, or a replay that failed; the message says what to do."""


def certificate_file(domain: Domain, settings: Settings) -> Path:
    """Return the file of a domain's certificate."""
    return settings.root / "parity" / domain.name / CERTIFICATE


def certify_service(domain: Domain, source: Source, transactions: LazyTable, stored: LazyTable, settings: Settings) -> dict[str, Any]:
    """Replay the ledger through the service's history, compare every feature, write the certificate and return it.

    Parameters
    ----------
    transactions, stored
        The validated transactions and the feature table. A ledger that is replayed whole is held to the feature table itself; of a larger
        one customers are drawn, and their rows are computed by the batch path from their transactions alone.

    Raises
    ------
    CertificateError
        Where a replay did not end.
    """
    features = domain.declare_features(source)
    groups, file = draw_groups(transactions, settings.seed), certificate_file(domain, settings)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        replays = [
            _Replay(Path(folder) / str(number), _members(transactions, customers), features, settings.seed + number)
            for number, customers in enumerate(groups)
        ]
        tables = [
            stored if customers is None else domain.build_features({"transactions": one.rows}, source)
            for customers, one in zip(groups, replays, strict=True)
        ]
        compared = [one.compare(table) for one, table in zip(replays, tables, strict=True)]
    values: dict[str, Any] = {
        "domain": domain.name,
        "source": source.name,
        "seed": settings.seed,
        **{name: sum(one[name] for one in compared) for name in compared[0] if name.startswith("n_")},
        "n_features": len(features),
        "max_abs_diff": {name: _or_null(max(one["max_abs_diff"][name] for one in compared)) for name in compared[0]["max_abs_diff"]},
        "worst": [one["worst"] for one in compared],
        "is_equal": all(one["is_equal"] for one in compared),
        "is_whole_ledger": groups == [None],
        "data_sha256": hashlib.sha256("".join(one["data_sha256"] for one in compared).encode()).hexdigest(),
        "code_sha256": hash_code(),
    }
    certificate = values | {"sha256": hash_certificate(values)}
    file.write_text(json.dumps(certificate, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return certificate


class _Replay:
    """The replay of one group, which begins at once in a process of its own."""

    def __init__(self, folder: Path, rows: LazyTable, features: Sequence[Any], seed: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder.mkdir()
        self.rows, self._folder, self._features, self._seed = rows, folder, features, seed
        self._events = list_events(rows, features)
        times = {"occurred_at_us": pa.int64(), "label_known_at_us": pa.int64(), "amount": pa.float64(), "is_fraud": pa.bool_()}
        columns = [name for name in self._events[0] if name not in ("occurred_at", "label_known_at")]
        written = {name: pa.array((event[name] for event in self._events), times.get(name, pa.string())) for name in columns}
        pq.write_table(pa.table(written), folder / "events.parquet")
        (folder / "declarations.json").write_text(json.dumps(to_json(features)), encoding="utf-8")
        self._scored = _pick_scored(self._events, seed)
        (folder / "scored.json").write_text(json.dumps(self._scored), encoding="utf-8")
        command = [sys.executable, "-m", "bento.decisions.scorers.parity_replay", str(folder), str(seed)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )

    def compare(self, table: LazyTable) -> dict[str, Any]:
        """Compute the batch path while the process replays, and return what the comparison found."""
        names = [feature.feature.name for feature in self._features]
        try:
            frame = table.select("transaction_id", *names).to_pandas().set_index("transaction_id")
            stored = frozenset(frame.index)
            places = np.array([place for place in self._scored if self._events[place]["transaction_id"] in stored], np.int64)
            batch = frame.loc[[self._events[place]["transaction_id"] for place in places], names].to_numpy(np.float64)
            arrivals = plan_arrivals(self._events, self._features, self._seed)
            arrived_at, arrived = compute_arrived(self._events, arrivals, self._features, places.tolist(), ARRIVED_ROWS, self._seed)
        finally:
            _, said = self._process.communicate()
        if self._process.returncode:
            raise CertificateError(f"the replay of the ledger ended with status {self._process.returncode}: {said.strip()[-800:]}")
        with np.load(self._folder / "replayed.npz") as online:
            is_overtaken = np.isin(places, arrivals.overtaken)
            parts = [
                compare(batch, online["settled"][places], names),
                *([compare(arrived, online["arrived"][arrived_at], names)] if arrived_at else []),
            ]
        return _describe(parts) | {
            "n_events": len(self._events),
            "n_deliveries": arrivals.n_deliveries,
            "n_late_rows": int(is_overtaken.sum()),
            "n_arrived_rows": len(arrived_at),
            "n_labels_loaded": len(arrivals.withheld),
            "n_deaths": sum(batch.dies for batch in arrivals.batches),
            "n_customers": len({event["customer_id"] for event in self._events}),
            "data_sha256": _hash_data(self._events, frame, columns=names),
        }


def _describe(parts: Sequence[Parity]) -> dict[str, Any]:
    worst = next((part for part in parts if not part.equal), parts[0])
    return {
        "n_rows": parts[0].n,
        "max_abs_diff": {name: max(part.max_abs_diff[name] for part in parts) for name in parts[0].max_abs_diff},
        "worst": str(worst),
        "is_equal": all(part.equal for part in parts),
    }


def _or_null(difference: float) -> float | None:
    """Return a difference as JSON has it: null where one path has a value and the other has none."""
    return difference if np.isfinite(difference) else None


def draw_groups(transactions: LazyTable, seed: int) -> list[list[str] | None]:
    """Return the customers of each group; a single None, for everybody, where the ledger has no more than the groups would take."""
    counted = transactions.group_by("customer_id").agg(n=transactions.count()).to_pandas()
    if int(counted.n.sum()) <= N_GROUPS * GROUP_EVENTS:
        return [None]
    number_of = dict(zip(counted.customer_id, counted.n.tolist(), strict=True))
    waiting = sorted(number_of, key=lambda customer: (crc32(f"{seed}/{customer}".encode()), customer), reverse=True)
    groups: list[list[str] | None] = []
    for _ in range(N_GROUPS):
        members: list[str] = []
        while waiting and sum(number_of[customer] for customer in members) < GROUP_EVENTS:
            members.append(waiting.pop())
        groups.append(members)
    return [members for members in groups if members]


def _members(transactions: LazyTable, customers: Sequence[str] | None) -> LazyTable:
    return transactions if customers is None else transactions.filter(transactions.customer_id.isin(list(customers))).cache()


def _pick_scored(events: Sequence[Event], seed: int) -> list[int]:
    """Return the places of the events of days drawn until they have `SCORED_EVENTS`."""
    of: dict[int, list[int]] = {}
    for place, event in enumerate(events):
        of.setdefault(event["occurred_at_us"] // (DAY * MICRO), []).append(place)
    scored: list[int] = []
    for day in sorted(of, key=lambda day: (crc32(f"scored {seed}/{day}".encode()), day)):
        if len(scored) >= SCORED_EVENTS:
            break
        scored += of[day]
    return sorted(scored)


def _hash_data(events: Sequence[Event], frame: Any, columns: Sequence[str]) -> str:
    import pandas as pd

    hashed = [data_sha256(pd.DataFrame(list(events))), data_sha256(frame.sort_index()[list(columns)].reset_index())]
    return hashlib.sha256("".join(hashed).encode()).hexdigest()


def hash_code() -> str:
    """Return the hash of the source files that compute a feature, in batch, in the service, or here."""
    digest = hashlib.sha256()
    for file in _list_code():
        digest.update(f"{file.relative_to(REPOSITORY).as_posix()}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _list_code() -> Iterator[Path]:
    for name in _CODE:
        path = REPOSITORY / name
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def hash_certificate(values: Mapping[str, Any]) -> str:
    """Return the hash of a certificate's content, without its own."""
    content = {name: value for name, value in values.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_certificate(domain: Domain, settings: Settings) -> dict[str, Any]:
    """Return a domain's certificate as it is written.

    Raises
    ------
    CertificateError
        Where there is none, or its content is not what it was signed with.
    """
    file, asset = certificate_file(domain, settings), f"parity_{domain.name}"
    try:
        certificate = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CertificateError(f"{domain.name} has no parity certificate in {file}: materialise {asset}") from None
    if not isinstance(certificate, dict) or certificate.get("sha256") != hash_certificate(certificate):
        raise CertificateError(f"{file} was changed after it was signed: materialise {asset} again")
    return certificate


def find_certificate_faults(domain: Domain, settings: Settings) -> list[str]:
    """Return why a domain's certificate does not allow to serve; nothing where it does."""
    try:
        certificate = read_certificate(domain, settings)
    except CertificateError as error:
        return [str(error)]
    faults = []
    if not certificate["is_equal"]:
        worst = "; ".join(one for one in certificate["worst"] if not one.startswith("equal"))
        faults.append(f"features of the service differ from the batch path ({worst}): repair the path that is wrong, and replay again")
    if certificate["code_sha256"] != hash_code():
        faults.append(f"the code of features is not the one that was certified: materialise parity_{domain.name} again")
    return faults


def describe_certificate(certificate: Mapping[str, Any]) -> str:
    """Return a certificate as a line."""
    verdict = "equal" if certificate["is_equal"] else "DIFFERENT"
    return (
        f"{verdict}: {certificate['n_events']:,} events in {certificate['n_deliveries']:,} deliveries, {certificate['n_rows']:,} rows x "
        f"{certificate['n_features']} features ({certificate['n_late_rows']:,} with a late event, {certificate['n_deaths']} deaths), "
        f"data {certificate['data_sha256'][:8]}, code {certificate['code_sha256'][:8]}, certificate {certificate['sha256'][:8]}"
    )
