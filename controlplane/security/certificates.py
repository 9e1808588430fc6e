"""A certificate authority for one installation, and one short-lived identity per principal.

One folder holds `ca.pem` (the authorities that everybody trusts, newest first), `authority.pem` (the one that signs, with its key) and `<name>.pem`
for each identity: its PKCS#8 key followed by its certificate. Key and certificate share a file, so that renewing is one atomic replacement
and nobody ever loads the key of one with the certificate of the other.
"""

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controlplane.events.catalog import Service
from controlplane.settings import TlsFiles

BROKER: Final = "broker"
ADMIN: Final = "admin"
PRINCIPALS: Final = (BROKER, ADMIN, *(service.value for service in Service))
"""Who has a certificate: the brokers, whoever administers them, and every service of the catalog."""
ONLY_ASK: Final = frozenset({ADMIN, Service.CLIENT.value, Service.AUDITOR.value})
"""They serve nothing, so their certificates are no server's: whoever holds one cannot pass for the gateway or a broker."""
LOCAL_HOSTS: Final = ("localhost", "127.0.0.1")

AUTHORITY_DAYS: Final = 3650
IDENTITY_DAYS: Final = 90
RENEW_WITHIN_DAYS: Final = 30
CLOCK_SKEW: Final = timedelta(minutes=5)
ANNOUNCE_BEFORE: Final = timedelta(days=2 * IDENTITY_DAYS)
ADOPT_BEFORE: Final = timedelta(days=IDENTITY_DAYS)
assert timedelta(days=AUTHORITY_DAYS) > ANNOUNCE_BEFORE > ADOPT_BEFORE >= timedelta(days=IDENTITY_DAYS)
assert IDENTITY_DAYS > RENEW_WITHIN_DAYS

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class CertificateInvalid(ValueError):
    """Expected a name, a host or a PEM file of this folder, but found something else."""


class Outcome(StrEnum):
    """What became of a file: it was missing and is made, it is due and is renewed, or it is good and kept."""

    MADE = "made"
    RENEWED = "renewed"
    KEPT = "kept"


class Authority(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate that signs others, with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one identity, and until when it holds."""

    name: str
    outcome: Outcome
    expires: datetime


def tls_files(folder: Path, name: str) -> TlsFiles:
    """Return the files with which a principal of this folder speaks TLS."""
    return TlsFiles(ca=folder / "ca.pem", certificate=folder / f"{name}.pem", key=folder / f"{name}.pem")


def ensure_certificates(
    folder: Path,
    names: Iterable[str] = PRINCIPALS,
    *,
    hosts: Iterable[str] = LOCAL_HOSTS,
    now: datetime | None = None,
    valid_days: int = IDENTITY_DAYS,
    renew_within_days: int = RENEW_WITHIN_DAYS,
) -> list[Report]:
    """Make what is missing and renew what is due: an identity that ends soon, lacks a host, or has another authority.

    Raises:
        CertificateInvalid: a name or a file is not what it should be.
    """
    moment = now or datetime.now(UTC)
    wanted_hosts = frozenset(hosts)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = _authority(folder, moment)
    return [
        _ensure(
            folder,
            name,
            authority,
            frozenset() if name in ONLY_ASK else wanted_hosts,
            moment,
            valid_days,
            timedelta(days=renew_within_days),
        )
        for name in names
    ]


def announce_authority(folder: Path, *, now: datetime | None = None) -> None:
    """Make the next authority and have it trusted; nothing is signed by it before `adopt_authority`.

    Between the two, every process has to load `ca.pem` again: whoever is renewed first is then known to those who are not.

    1. The next authority is written. A crash here: it is not trusted yet, and announcing again completes step 2.
    2. It joins those that everybody trusts.
    """
    moment = now or datetime.now(UTC)
    path = folder / "next-authority.pem"
    if not path.exists():
        authority = new_authority(moment)
        _write_private(path, _pem(authority.key, authority.certificate))  # Step 1.
    _trust(folder, _read_authority(path).certificate, moment)  # Step 2.


def adopt_authority(folder: Path) -> None:
    """Let the announced authority sign from now on: `ensure_certificates` renews every identity under it.

    Raises:
        CertificateInvalid: none was announced.
    """
    announced = _read_authority(folder / "next-authority.pem")
    if announced.certificate not in trusted(folder):
        raise CertificateInvalid(
            f"Expected {folder / 'ca.pem'} to hold the next authority, but its announcement was cut off."
        )
    (folder / "next-authority.pem").replace(folder / "authority.pem")


def retire_authorities(folder: Path) -> int:
    """Trust only the authority that signs now; returns how many others were dropped.

    Call it when every identity was renewed under it and every process has loaded its own.
    """
    authority = _read_authority(folder / "authority.pem")
    before = trusted(folder)
    _write_public(folder / "ca.pem", authority.certificate.public_bytes(Encoding.PEM))
    return sum(1 for one in before if one != authority.certificate)


def new_authority(now: datetime, *, valid_days: int = AUTHORITY_DAYS) -> Authority:
    """Return a new self-signed authority that may sign identities but no further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"controlplane authority {now:%Y-%m-%d %H:%M:%S}")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(name, name, key.public_key(), now, valid_days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
    )
    return Authority(certificate=builder.sign(key, hashes.SHA256()), key=key)


def issue(authority: Authority, name: str, hosts: Iterable[str], now: datetime, *, valid_days: int) -> bytes:
    """Return the PEM of a new key and its certificate: the principal's name as common name, the hosts it serves at.

    Without hosts it is a client's: it can ask but not serve.

    Raises:
        CertificateInvalid: the name could be read as another principal's.
    """
    if not _NAME.fullmatch(name):
        # The brokers find the principal in the subject by a pattern: commas and signs of equality must not get there.
        raise CertificateInvalid(
            f"Expected a name of lower-case letters, digits, dots and dashes, but found {name[:80]!r}."
        )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    served = [_general_name(host) for host in sorted(hosts)]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if served else [])]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = (
        _builder(subject, authority.certificate.subject, key.public_key(), now, valid_days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issuer, critical=False)
    )
    if served:
        builder = builder.add_extension(x509.SubjectAlternativeName(served), critical=False)
    return _pem(key, builder.sign(authority.key, hashes.SHA256()))


def due_for_renewal(
    certificate: x509.Certificate, authority: x509.Certificate, hosts: frozenset[str], now: datetime, within: timedelta
) -> str | None:
    """Return why a certificate is to be renewed, or None when it is good."""
    if certificate.not_valid_after_utc - now <= within:
        return f"it ends at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M}"
    issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    if issuer != authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest:
        return "another authority signed it"
    if missing := hosts - hosts_of(certificate):
        return f"it does not name {', '.join(sorted(missing))}"
    return None


def read_certificate(path: Path) -> x509.Certificate:
    """Return the certificate in an identity's file.

    Raises:
        CertificateInvalid: there is none.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CertificateInvalid(f"Expected a certificate in {path}, but: {error}.") from error


def subject_name(peer: Mapping[str, object]) -> str | None:
    """Return the common name in a certificate as `ssl.SSLSocket.getpeercert` gives it."""
    relative_names = peer.get("subject", ())
    assert isinstance(relative_names, tuple)
    names = [value for one in relative_names for field, value in one if field == "commonName"]
    return str(names[0]) if len(names) == 1 else None


# Files


def _authority(folder: Path, now: datetime) -> Authority:
    """Return the authority that signs: the first is made here; one that ends is succeeded early, in the two steps that this takes."""
    path = folder / "authority.pem"
    if not path.exists():
        announce_authority(folder, now=now)
        adopt_authority(folder)
    authority = _read_authority(path)
    left = authority.certificate.not_valid_after_utc - now
    if left <= ANNOUNCE_BEFORE:
        announce_authority(folder, now=now)
    if left <= ADOPT_BEFORE:
        adopt_authority(folder)
        authority = _read_authority(path)
    return authority


def _ensure(
    folder: Path, name: str, authority: Authority, hosts: frozenset[str], now: datetime, valid_days: int, within: timedelta
) -> Report:  # fmt: skip
    path = folder / f"{name}.pem"
    outcome = Outcome.KEPT
    if not path.exists():
        outcome = Outcome.MADE
    elif due_for_renewal(read_certificate(path), authority.certificate, hosts, now, within):
        outcome = Outcome.RENEWED
    if outcome is not Outcome.KEPT:
        _write_private(path, issue(authority, name, hosts, now, valid_days=valid_days))
    return Report(name=name, outcome=outcome, expires=read_certificate(path).not_valid_after_utc)


def _read_authority(path: Path) -> Authority:
    try:
        content = path.read_bytes()
        key = load_pem_private_key(content, None)
        certificate = x509.load_pem_x509_certificate(content)
    except (OSError, ValueError) as error:
        raise CertificateInvalid(f"Expected an authority's key and certificate in {path}, but: {error}.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateInvalid(f"Expected a key on an elliptic curve in {path}, but found {type(key).__name__}.")
    return Authority(certificate=certificate, key=key)


def trusted(folder: Path) -> list[x509.Certificate]:
    """Return the authorities that everybody trusts."""
    path = folder / "ca.pem"
    return x509.load_pem_x509_certificates(path.read_bytes()) if path.exists() else []


def _trust(folder: Path, newest: x509.Certificate, now: datetime) -> None:
    older = [one for one in trusted(folder) if one != newest and one.not_valid_after_utc > now]
    _write_public(folder / "ca.pem", b"".join(one.public_bytes(Encoding.PEM) for one in (newest, *older)))


def _write_private(path: Path, content: bytes) -> None:
    _replace(path, content, 0o600)


def _write_public(path: Path, content: bytes) -> None:
    _replace(path, content, 0o644)


def _replace(path: Path, content: bytes, mode: int) -> None:
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


# Certificates


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, valid_days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=valid_days))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        key_cert_sign=signs_certificates, crl_sign=signs_certificates, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise CertificateInvalid(f"Expected a host name or an address, but found {host[:80]!r}.") from error


def hosts_of(certificate: x509.Certificate) -> frozenset[str]:
    """Return the names and addresses that a certificate may serve at."""
    try:
        served = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    addresses = (str(one) for one in served.get_values_for_type(x509.IPAddress))
    return frozenset([*served.get_values_for_type(x509.DNSName), *addresses])


def _pem(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bytes:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + certificate.public_bytes(Encoding.PEM)
