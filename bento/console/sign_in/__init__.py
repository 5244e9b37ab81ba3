"""Sessions of signed-in people, and the sign-in through an OIDC provider."""
