"""Bearer tokens of a test issuer, and the JWKS document of its public keys."""

import json
import time

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ISSUER, AUDIENCE = "https://login.bank.example", "finrisk"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE = ec.generate_private_key(ec.SECP256R1())


def jwks_document(**keys):
    """Return a JWKS document with public keys by their ids."""
    documents = []
    for kid, key in keys.items():
        algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
        documents.append(json.loads(algorithm.to_jwk(key.public_key())) | {"kid": kid, "use": "sig"})
    return {"keys": documents}


def token(key=RSA, kid="one", algorithm="RS256", headers=None, **claims):
    """Return a valid token with some claims changed; None leaves a claim out."""
    now = int(time.time())
    full = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": now + 300, "nbf": now - 5, "roles": ["scorer"]} | claims
    claims_left = {name: value for name, value in full.items() if value is not None}
    return jwt.encode(claims_left, key, algorithm, headers={"kid": kid} if headers is None else headers)
