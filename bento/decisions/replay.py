"""Replay: what was decided is decided once more, from the stored inputs and by the model version that they name.

It is the same code that answers requests, on the row that was stored, so an answer that comes out otherwise was changed, or the code
was. Nothing is written. Which decisions the store holds is `store`'s matter, how the command reports them `bento.cli.audit`'s.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bento.decisions.domains import DOMAINS, outcome_of
from bento.problems import Problem
from bento.store.audit_verify import is_recorded
from bento.store.records import DecisionPayload, FeatureSnapshot, StoredDecision
from bento.store.session import Store
from finrisk_assets.scoring.bundle import Bundle, Scores
from finrisk_assets.scoring.bundle_io import MANIFEST
from finrisk_assets.scoring.spec import BundleError
from schemas.api import Answer

REPLAY_CHUNK_SIZE = 500
"""Decisions of one model that are scored at once."""
TOLERANCE = 1e-6
"""How far a number may be from the stored one, as a share of it where it is above 1: another runtime, as for a bundle's golden rows."""
MOST_TOLD = 20
"""Differences that are told one by one; all are counted."""


class Difference(NamedTuple):
    """A stored decision that is not what it was, or does not come out as it was stored.

    Attributes
    ----------
    decision
        Its identifier.
    what
        Where it differs, as a path into the answer, or why it cannot be trusted: never a value.
    """

    decision: str
    what: str


@dataclass
class Replayed:
    """What replaying found.

    Attributes
    ----------
    equal
        Decisions that came out as they were stored, and whose bytes are those that the audit knows.
    different
        Those that came out otherwise.
    damaged
        Those that cannot be unsealed though the key is there: their bytes were changed.
    unrecorded
        Those whose bytes are not the ones that the audit has recorded, whatever comes out.
    erased
        Those on people who were erased: nobody can read them any more.
    unknown
        Model -> those that name a version which is no longer there.
    told
        The first of those that are different, damaged or unrecorded.
    """

    equal: int = 0
    different: int = 0
    damaged: int = 0
    unrecorded: int = 0
    erased: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    told: list[Difference] = field(default_factory=list)

    @property
    def decisions(self) -> int:
        return self.equal + self.different + self.damaged + self.unrecorded + self.erased + self.unknown.total()

    @property
    def agrees(self) -> bool:
        """Whether every decision that can be read and made again came out as it was stored and recorded."""
        return not (self.different or self.damaged or self.unrecorded)

    def _tell(self, one: StoredDecision, what: str) -> None:
        if len(self.told) < MOST_TOLD:
            self.told.append(Difference(one.id, what))


class Versions:
    """The bundles of all model versions that are kept, each loaded when it is first asked for.

    Parameters
    ----------
    models
        The folder `models` of a BentoML store: a folder for each model, in it one for each version.
    """

    def __init__(self, models: Path) -> None:
        self._models = models
        self._loaded: dict[tuple[str, str], Bundle | None] = {}

    def __call__(self, domain: str, version: str) -> Bundle | None:
        """The bundle of a version, or None where it is no longer there, or not what it was."""
        if (domain, version) not in self._loaded:
            self._loaded[domain, version] = self._load(domain, version)
        return self._loaded[domain, version]

    def _load(self, domain: str, version: str) -> Bundle | None:
        folder = self._models / ("finrisk-" + domain.replace("_", "-")) / version
        if not (folder / MANIFEST).is_file():
            return None
        try:
            return Bundle.load(folder, version=version)
        except BundleError:
            return None


def replay(
    store: Store, bundle_of: Callable[[str, str], Bundle | None], *, since: int | None = None, domain: str | None = None
) -> Replayed:
    """Decide everything once more and compare, a few hundred decisions of one model at a time.

    Parameters
    ----------
    store
        Its decisions are read, nothing is written.
    bundle_of
        Domain and version to the bundle, or None (`Versions`).
    since
        Microseconds since 1970, UTC: no decisions from before that.
    domain
        Only decisions of this one.
    """
    found = Replayed()
    scorers: dict[tuple[str, str], Any] = {}
    for together in _grouped(store, since, domain):
        first = together[0]
        bundle = bundle_of(first.domain, first.model_version)
        with store.reading() as connection:
            recorded = [is_recorded(connection, one.decided_at, hashlib.sha256(one.sealed).hexdigest()) for one in together]
        if first.content is not None and bundle is not None:
            named = first.domain, first.model_version
            scorer = scorers.get(named) or scorers.setdefault(named, DOMAINS[first.domain].scorer(bundle, store))
            verdicts = _compared(together, bundle, scorer)
        else:
            verdicts = [_UNREADABLE] * len(together)
        for one, known, apart in zip(together, recorded, verdicts, strict=True):
            _count(found, one, known, apart)
    return found


def _grouped(store: Store, since: int | None, domain: str | None) -> Iterator[list[StoredDecision]]:
    """The decisions in groups of one model, those that can be read apart from those that cannot."""
    waiting: dict[tuple[str, str, bool], list[StoredDecision]] = {}
    for one in store.decisions():
        if (since is not None and one.decided_at < since) or domain not in (None, one.domain):
            continue
        named = one.domain, one.model_version, one.content is not None
        group = waiting.setdefault(named, [])
        group.append(one)
        if len(group) == REPLAY_CHUNK_SIZE:
            yield waiting.pop(named)
    yield from waiting.values()


def _count(found: Replayed, one: StoredDecision, recorded: bool, apart: str | None) -> None:
    if one.content is None and not one.erased:
        found.damaged += 1
        found._tell(one, "it cannot be unsealed: its bytes were changed")
    elif apart not in (None, _UNREADABLE):
        found.different += 1
        found._tell(one, f"{apart} comes out otherwise")
    elif not recorded:
        found.unrecorded += 1
        found._tell(one, "its bytes are not those that the audit has recorded")
    elif one.erased:
        found.erased += 1
    elif apart == _UNREADABLE:
        found.unknown[f"{one.domain} {one.model_version}"] += 1
    else:
        found.equal += 1


_UNREADABLE = "unreadable"


def _compared(together: Sequence[StoredDecision], bundle: Bundle, scorer: Any) -> list[str | None]:
    """Where each of a group of decisions of one model comes out otherwise, or None."""
    try:
        return _rescore(together, bundle, scorer)
    except (KeyError, TypeError, ValueError, Problem):  # one of them was changed so that nothing can be made of it
        return ["all of it"] if len(together) == 1 else [_compared([one], bundle, scorer)[0] for one in together]


def _rescore(together: Sequence[StoredDecision], bundle: Bundle, scorer: Any) -> list[str | None]:
    rows = np.stack([_content(one).row for one in together])
    scores = bundle.score(rows)
    found = []
    for at, one in enumerate(together):
        content, only = _content(one), slice(at, at + 1)
        request, snapshot = _request(one.domain, content), _snapshot(one.domain, content)
        scoring_input = scorer.restore(request, rows[at], snapshot, content.decision_context)
        of_row = Scores(scores.margin[only], scores.probability[only], scores.base, scores.contributions[only])
        found.append(_apart(one, content.answer, scorer.build_answer(scoring_input, of_row)))
    return found


def _content(one: StoredDecision) -> DecisionPayload:
    assert one.content is not None
    return one.content


def _request(domain: str, content: DecisionPayload) -> Any:
    return DOMAINS[domain].request.model_validate_json(json.dumps(content.request))


def _snapshot(domain: str, content: DecisionPayload) -> FeatureSnapshot | None:
    """Whom the answer is about, as the store knew them then."""
    who = content.answer
    if who.get("customer_id") is None:
        return None
    return FeatureSnapshot(domain, "", who["customer_id"], who.get("account_id"), who["as_of"], {}, {})


def _apart(one: StoredDecision, stored: Any, again: Answer) -> str | None:
    """Where a decision differs from what it comes out as now, or None."""
    probability, decision = outcome_of(one.domain, again)
    beside = _differs({"probability": one.probability, "decision": one.decision}, {"probability": probability, "decision": decision})
    return beside or _differs(stored, again.model_dump(mode="json"))


def _differs(stored: Any, again: Any, path: str = "") -> str | None:
    """The first path at which two values of JSON are apart."""
    if stored == again:
        return None
    if isinstance(stored, dict) and isinstance(again, dict):
        names = [*again, *(name for name in stored if name not in again)]
        parts = [(f"{path}.{name}" if path else name, stored.get(name, _NOTHING), again.get(name, _NOTHING)) for name in names]
    elif isinstance(stored, list) and isinstance(again, list) and len(stored) == len(again):
        parts = [(f"{path}[{at}]", *both) for at, both in enumerate(zip(stored, again, strict=True))]
    elif isinstance(stored, float | int) and isinstance(again, float | int):
        return None if abs(stored - again) <= TOLERANCE * max(1.0, abs(stored)) else path
    else:
        return path
    return next((apart for name, one, other in parts if (apart := _differs(one, other, name))), None)


_NOTHING = object()
