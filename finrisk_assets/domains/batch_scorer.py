"""The scorer of a batch of a feature table, which runs wherever the rows are.

It holds the files of the champion's bundle, not the bundle: so it travels to another machine, and loads there what the service loads.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finrisk_assets.domains.base import Domain
from finrisk_assets.policy.document import Policy
from finrisk_assets.scoring.bundle import Bundle
from schemas.ledger import ARROW_TYPES

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class BatchScorer:
    """The champion of a domain under a policy, with its companions.

    Attributes
    ----------
    carried
        Columns of the feature table that the scores repeat.
    bundles
        Name of a domain to the files of its bundle, by name: of `domain`, and of its companions that have champions.
    """

    domain: Domain
    policy: Policy
    carried: tuple[str, ...]
    bundles: Mapping[str, Mapping[str, bytes]]

    @classmethod
    def read(cls, domain: Domain, policy: Policy, columns: tuple[str, ...], folders: Mapping[str, Path]) -> "BatchScorer":
        """Read the bundles of a domain and its companions, by the name of the domain; a folder that is not there is left out.

        Parameters
        ----------
        columns
            The columns of the feature table.
        """
        bundles = {
            name: {file.name: file.read_bytes() for file in sorted(folder.iterdir())} for name, folder in folders.items() if folder.is_dir()
        }
        return cls(domain, policy, tuple(name for name in domain.score_contract().names if name in columns), bundles)

    @property
    def schema(self) -> "pa.Schema":
        """The columns of the batch scores."""
        import pyarrow as pa

        return pa.schema([(column.name, pa.type_for_alias(ARROW_TYPES[column.dtype])) for column in self.domain.score_contract().columns])

    @cached_property
    def champion(self) -> Bundle:
        """The bundle as it decides, loaded and checked when it is first asked for."""
        with tempfile.TemporaryDirectory(prefix="finrisk-bundle-") as root:
            loaded = {}
            for name, files in self.bundles.items():
                folder = Path(root) / name
                folder.mkdir()
                for file, content in files.items():
                    (folder / file).write_bytes(content)
                # A batch is scored by one thread: several are in work at the same time.
                loaded[name] = Bundle.load(folder, threads=1, policy=self.policy)
        companions = {name: bundle for name, bundle in loaded.items() if name != self.domain.name}
        return loaded[self.domain.name].under(self.policy, companions)

    def __call__(self, batch: "pa.RecordBatch") -> "pa.RecordBatch":
        """Return the scores of a batch of the feature table."""
        import pyarrow as pa

        versions = {"model_version": self.champion.version, "policy_version": self.champion.policy.version}
        columns: dict[str, Any] = {name: [version] * len(batch) for name, version in versions.items()}
        columns |= {name: batch.column(name) for name in self.carried} | dict(self.domain.score(batch.to_pandas(), self.champion))

        def typed(values: Any, kind: pa.DataType) -> pa.Array:
            return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)

        return pa.RecordBatch.from_arrays([typed(columns[field.name], field.type) for field in self.schema], schema=self.schema)

    def __getstate__(self) -> dict[str, Any]:
        """Return what travels: not the loaded bundle."""
        return {name: value for name, value in self.__dict__.items() if name != "champion"}
