"""The issuer of accepted bearer tokens, as the settings name it, and the faults of its tokens. `token_verifier` verifies the tokens.

The module does not import PyJWT: a service without an issuer starts without that library.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from bento.access.client_address import LOCAL_HOSTS
from finrisk_assets.settings import Settings, SettingsError


class TokenRejected(Exception):  # noqa: N818 - named for what happens
    """A token that is not accepted. The text is a reason in one word, fit for a metric's label."""


class IssuerKeysUnavailable(Exception):  # noqa: N818 - named for what is wrong
    """Public keys of the issuer that were never read, so that no token can be verified."""


@dataclass(frozen=True)
class TokenIssuer:
    """The identity provider whose tokens are accepted.

    Attributes
    ----------
    issuer, audience
        Required values of the claims `iss` and `aud`.
    jwks
        URL or file of the public keys.
    roles_claim
        Name of the claim with the roles; dots lead into nested claims (``realm_access.roles``).
    role_prefix
        Prefix of finrisk's role names in that claim.
    """

    issuer: str
    audience: str
    jwks: str
    roles_claim: str = "roles"
    role_prefix: str = ""

    @classmethod
    def from_settings(cls, settings: Settings) -> "TokenIssuer | None":
        """Return the issuer that the settings name; None where they name none.

        Raises
        ------
        SettingsError
            If one of issuer, audience and keys is missing, or the keys would be read over an unencrypted connection.
        """
        required = {
            "FINRISK_JWT_ISSUER": settings.jwt_issuer,
            "FINRISK_JWT_AUDIENCE": settings.jwt_audience,
            "FINRISK_JWT_JWKS": settings.jwt_jwks,
        }
        missing = [name for name, value in required.items() if not value]
        if len(missing) == len(required):
            return None
        if missing:
            raise SettingsError(f"bearer tokens need {', '.join(required)} together; {', '.join(missing)} is not set")
        url = urlsplit(settings.jwt_jwks)
        if url.scheme == "http" and url.hostname not in LOCAL_HOSTS:
            raise SettingsError("FINRISK_JWT_JWKS must be https://… or a file: over http anyone on the way could put keys of their own in")
        return cls(settings.jwt_issuer, settings.jwt_audience, settings.jwt_jwks, settings.jwt_roles_claim, settings.jwt_role_prefix)
