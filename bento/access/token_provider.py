"""The identity provider whose bearer tokens are accepted, as the settings name it, and why one of its tokens is not (see `tokens`)."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from finrisk_assets.settings import Settings, SettingsError

_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


class BadToken(Exception):  # noqa: N818 - it is named for what is wrong
    """A token that is not accepted; its text is a reason in one word, which may be counted and told."""


class NoKeys(Exception):  # noqa: N818 - it is named for what is wrong
    """The provider's keys were never read: no token can be judged."""


@dataclass(frozen=True)
class Provider:
    """Whose tokens are accepted.

    Attributes
    ----------
    issuer, audience
        What `iss` and `aud` of a token must be.
    jwks
        URL or file of the public keys.
    roles_claim
        The claim that has the roles; dots lead into it (``realm_access.roles``).
    role_prefix
        What stands before our names of roles there.
    """

    issuer: str
    audience: str
    jwks: str
    roles_claim: str = "roles"
    role_prefix: str = ""

    @classmethod
    def of(cls, settings: Settings) -> "Provider | None":
        """The provider that the settings name, or None.

        Raises
        ------
        SettingsError
            Where one of issuer, audience and keys is missing, or the keys would come over an open line.
        """
        needed = {
            "FINRISK_JWT_ISSUER": settings.jwt_issuer,
            "FINRISK_JWT_AUDIENCE": settings.jwt_audience,
            "FINRISK_JWT_JWKS": settings.jwt_jwks,
        }
        missing = [name for name, value in needed.items() if not value]
        if len(missing) == len(needed):
            return None
        if missing:
            raise SettingsError(f"bearer tokens need {', '.join(needed)} together; {', '.join(missing)} is not set")
        parts = urlsplit(settings.jwt_jwks)
        if parts.scheme == "http" and parts.hostname not in _LOCAL_NAMES:
            raise SettingsError("FINRISK_JWT_JWKS must be https://… or a file: over http anyone on the way could put keys of their own in")
        return cls(settings.jwt_issuer, settings.jwt_audience, settings.jwt_jwks, settings.jwt_roles_claim, settings.jwt_role_prefix)
