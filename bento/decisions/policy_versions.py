"""The policies of all decisions: the store keeps each document by version, so that an old decision is rebuilt under its own policy."""

from sqlalchemy import bindparam, insert, select

from bento.problems import log_failure
from bento.store.session import STORE_FAULTS, Store
from bento.store.tables import policies
from finrisk_assets.policy.document import Policy
from finrisk_assets.policy.policy_file import PolicyError, default_policy, parse_policy

_SELECT = select(policies.c.document).where(policies.c.version == bindparam("of_version"))


def archive_policy(store: Store, policy: Policy) -> bool:
    """Keep a policy in the store where the store lacks it; return whether it is there.

    A fault of the store is logged: without its policy a decision is recorded in full.
    """
    try:
        if _read_document(store, policy.version) is None:
            with store.writing() as connection:
                store.advisory_lock(policy=policy.version)  # another worker may start at the same time
                if connection.execute(_SELECT, {"of_version": policy.version}).first() is None:
                    connection.execute(insert(policies), {"version": policy.version, "document": policy.canonical_json()})
    except STORE_FAULTS as error:
        log_failure(error)
        return False
    return True


def find_policy(store: Store, version: str) -> Policy | None:
    """Return the policy of a version; None where it is missing, or its document was changed.

    Raises
    ------
    bento.store.database.StoreUnavailable
        Where the store is not available.
    """
    shipped = default_policy()
    if version == shipped.version:
        return shipped
    document = _read_document(store, version)
    if document is None:
        return None
    try:
        policy = parse_policy(document, f"policy {version}")
    except PolicyError:
        return None
    return policy if policy.version == version else None


def _read_document(store: Store, version: str) -> str | None:
    with store.reading() as connection:
        document: str | None = connection.execute(_SELECT, {"of_version": version}).scalar_one_or_none()
    return document
