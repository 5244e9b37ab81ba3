"""The bind guard: a service without keys and token issuer does not start on an address that other machines reach."""

from collections.abc import Callable
from contextlib import closing

from bentoml.exceptions import BentoMLException

from bento.access.api_keys import list_keys
from bento.access.client_address import is_loopback
from bento.access.token_issuer import TokenIssuer
from bento.store.database import StoreError, StoreUnavailable
from bento.store.keyring import Keyring, KeyringError
from bento.store.session import open_store
from finrisk_assets.settings import Settings, SettingsError


class InsecureBind(BentoMLException):
    """An address on which the service must not listen. The message says why and what to do."""


def check(settings: Settings) -> None:
    """Check that the service may listen on the address of this process.

    Raises
    ------
    InsecureBind
        If other machines reach the address, and there is no API key and no token issuer, the master key would lie beside the data, or the
        store cannot be read; on any address, if the settings are not valid.
    """
    try:
        issuer, host = TokenIssuer.from_settings(settings), find_bind_host()
        if not is_loopback(host):
            Keyring.of(settings, make=False)
            check_host(host, lambda: issuer is not None or _has_keys(settings))
    except (SettingsError, KeyringError, StoreError) as error:
        raise InsecureBind(str(error)) from None
    except StoreUnavailable as error:
        raise InsecureBind(f"the store is not available, so it is unknown whether there are API keys; start the store: {error}") from None


def _has_keys(settings: Settings) -> bool:
    with closing(open_store(settings)) as store, store.reading() as connection:
        return bool(list_keys(connection))


def find_bind_host() -> str:
    """Return the address on which the `bentoml serve` of this process is about to listen.

    BentoML does not pass the address on. `--host` and BENTOML_HOST are a parameter of the running click command; without them the address
    is the declared one of the service or of BentoML's configuration.
    """
    import click
    from bentoml._internal.container import BentoMLContainer

    command = click.get_current_context(silent=True)
    requested = command.params.get("host") if command is not None else None
    return str(requested or BentoMLContainer.http.host.get())


def check_host(host: str, has_credentials: Callable[[], bool]) -> None:
    """Check that a service on this address asks its callers for a credential, or that only this machine reaches the address.

    Parameters
    ----------
    host
        An IP address.
    has_credentials
        Returns whether there is an API key or a token issuer; called only where other machines reach the address.

    Raises
    ------
    InsecureBind
        If other machines reach the address and there is neither.
    """
    if is_loopback(host) or has_credentials():
        return
    raise InsecureBind(
        f"on {host} other machines could call this service without a credential: make a key with "
        "`finrisk keys create --name NAME --role ROLE`, or set FINRISK_JWT_ISSUER, FINRISK_JWT_AUDIENCE and FINRISK_JWT_JWKS, "
        "or serve on 127.0.0.1 (docs/access.md)"
    )
