"""The console as a client of an OIDC provider, as the settings describe it. `oidc_provider` sends the requests.

The module imports neither PyJWT nor httpx: the service checks these settings at its start, and a service without a provider starts without
those libraries.
"""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from bento.access.client_address import LOCAL_HOSTS
from finrisk_assets.settings import Settings, SettingsError


@dataclass(frozen=True)
class OidcClient:
    """The console as it is registered at its provider.

    Attributes
    ----------
    issuer
        The provider: the issuer of its tokens.
    client_id, client_secret
        The console's identifier and secret at the provider; a public client has no secret.
    scopes
        Scopes that the console asks for, separated by spaces.
    console_url
        The console's public address, which ends with ``/console``.
    """

    issuer: str
    client_id: str
    console_url: str
    client_secret: str = field(default="", repr=False)
    scopes: str = "openid"

    @classmethod
    def from_settings(cls, settings: Settings) -> "OidcClient | None":
        """Return the client that the settings describe; None where they name none.

        Raises
        ------
        SettingsError
            If a setting is missing, an address is neither https nor of this machine, or the scopes lack ``openid``.
        """
        if not settings.oidc_client_id:
            if settings.oidc_client_secret:
                raise SettingsError("FINRISK_OIDC_CLIENT_SECRET is set without FINRISK_OIDC_CLIENT_ID: set both, or neither")
            return None
        addresses = {"FINRISK_JWT_ISSUER": settings.jwt_issuer, "FINRISK_CONSOLE_URL": settings.console_url}
        for name, address in addresses.items():
            if not is_secure_url(address):
                raise SettingsError(f"FINRISK_OIDC_CLIENT_ID needs {name}, which is {address or 'not set'}: set an address with https://")
        console_url = settings.console_url.rstrip("/")
        if urlsplit(console_url).path != "/console":
            raise SettingsError(f"FINRISK_CONSOLE_URL={settings.console_url!r} is not the console's address: set https://HOST/console")
        if "openid" not in settings.oidc_scopes.split():
            raise SettingsError(f"FINRISK_OIDC_SCOPES={settings.oidc_scopes!r} lacks openid: set openid and further scopes after it")
        return cls(settings.jwt_issuer, settings.oidc_client_id, console_url, settings.oidc_client_secret, settings.oidc_scopes)

    @property
    def provider_name(self) -> str:
        """The provider's host, by which people know it."""
        return urlsplit(self.issuer).netloc

    @property
    def redirect_uri(self) -> str:
        """The address to which the provider leads people back."""
        return f"{self.console_url}/signed-in"


def is_secure_url(address: str) -> bool:
    """Return whether nobody on the way reads what is sent to an address: it has https, or is of this machine."""
    try:
        url = urlsplit(address)
    except ValueError:
        return False
    return (url.scheme == "https" and bool(url.hostname)) or (url.scheme == "http" and url.hostname in LOCAL_HOSTS)
