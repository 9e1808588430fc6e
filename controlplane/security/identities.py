"""Identities as people and browsers take them: what a folder holds, and one of them packed."""

import secrets
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from cryptography.x509.oid import NameOID

from controlplane.security.certificates import hosts_of, read_certificate, trusted


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What an identity's certificate says."""

    name: str
    expires: datetime
    hosts: tuple[str, ...]
    authority: str


def identities(folder: Path) -> list[Identity]:
    """Return the identities of a folder, by name.

    Raises:
        CertificateInvalid: a file holds no certificate.
    """
    others = {"ca.pem", "authority.pem", "next-authority.pem"}
    found = []
    for path in sorted(one for one in folder.glob("*.pem") if one.name not in others):
        certificate = read_certificate(path)
        issuer = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
        found.append(
            Identity(
                name=path.stem,
                expires=certificate.not_valid_after_utc,
                hosts=tuple(sorted(hosts_of(certificate))),
                authority=str(issuer[0].value) if issuer else "",
            )
        )
    return found


def random_password() -> str:
    """Return a password that nobody guesses."""
    return secrets.token_urlsafe(18)


def packed(folder: Path, name: str, password: str) -> bytes:
    """Return an identity with its authorities as PKCS#12, which browsers and Java take.

    Raises:
        OSError: there is no such identity.
    """
    content = (folder / f"{name}.pem").read_bytes()
    key = load_pem_private_key(content, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return serialize_key_and_certificates(
        name.encode(),
        key,
        x509.load_pem_x509_certificate(content),
        trusted(folder),
        BestAvailableEncryption(password.encode()),
    )
