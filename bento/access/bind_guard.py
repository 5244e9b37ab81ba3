"""Where the service listens. On an address that other machines reach it does not start unless it asks everybody who they are."""

import ipaddress
from collections.abc import Callable
from contextlib import closing

from bentoml.exceptions import BentoMLException

from bento.access.api_keys import kept
from bento.access.token_provider import Provider
from bento.store.database import StoreError, StoreUnavailable
from bento.store.keyring import Keyring, KeyringError
from bento.store.session import open_store
from finrisk_assets.settings import Settings, SettingsError


class Exposed(BentoMLException):
    """The service would stand open to other machines; what to do about it."""


def check(settings: Settings) -> None:
    """Whether the service may listen where this process is about to.

    Raises
    ------
    Exposed
        Where it may not: nobody would be asked who they are, the master key would lie beside the data, or that cannot be told.
    """
    try:
        provider, host = Provider.of(settings), listening()
        if not is_loopback(host):
            Keyring.of(settings, make=False)
            refuse(host, lambda: provider is not None or _has_keys(settings))
    except (SettingsError, KeyringError, StoreError) as error:
        raise Exposed(str(error)) from None
    except StoreUnavailable as error:
        raise Exposed(f"whether there are API keys cannot be told, for the store cannot be had: {error}") from None


def _has_keys(settings: Settings) -> bool:
    with closing(open_store(settings)) as store, store.reading() as connection:
        return bool(kept(connection))


def listening() -> str:
    """The address that the `bentoml serve` of this process is about to listen on.

    BentoML hands it to nobody: `--host` and BENTOML_HOST are a parameter of the command, of which click knows while it runs, and without
    them it is the one that the service or BentoML's configuration declares.
    """
    import click
    from bentoml._internal.container import BentoMLContainer

    command = click.get_current_context(silent=True)
    told = command.params.get("host") if command is not None else None
    return str(told or BentoMLContainer.http.host.get())


def refuse(host: str, knows_callers: Callable[[], bool]) -> None:
    """Refuse to listen on an address of which nobody would be asked who they are.

    Parameters
    ----------
    host
        An IP address.
    knows_callers
        Whether there is a key or a provider of tokens; asked only where it matters.

    Raises
    ------
    Exposed
        Where others reach the address and there is neither.
    """
    if is_loopback(host) or knows_callers():
        return
    raise Exposed(
        f"on {host} other machines could ask this service, and it would not ask who they are: make a key with "
        "`finrisk keys create --name NAME --role ROLE`, or set FINRISK_JWT_ISSUER, FINRISK_JWT_AUDIENCE and FINRISK_JWT_JWKS, "
        "or serve on 127.0.0.1 (docs/access.md)"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
