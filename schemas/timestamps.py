"""Instants as both halves store and compare them: whole microseconds since 1970, in UTC."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1)
"""The instant 0, in UTC without a zone."""

DAY_US = 86_400_000_000
"""Microseconds in a day."""

_EPOCH_UTC = EPOCH.replace(tzinfo=UTC)
_SECONDS_PER_DAY = 86_400
_MICROS_PER_SECOND = 1_000_000


def to_micros(time: datetime) -> int:
    """Return the whole microseconds since 1970 of a time; a time without a zone is UTC."""
    since = time - (EPOCH if time.tzinfo is None else _EPOCH_UTC)
    return (since.days * _SECONDS_PER_DAY + since.seconds) * _MICROS_PER_SECOND + since.microseconds


def from_micros(microseconds: int) -> datetime:
    """Return the time of microseconds since 1970, in UTC without a zone: the inverse of `to_micros`."""
    return EPOCH + timedelta(microseconds=microseconds)
