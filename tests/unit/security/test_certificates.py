"""One authority, one identity per principal, each renewed before it ends; checked by real TLS handshakes."""

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from controlplane.events.catalog import Service
from controlplane.security.certificates import (
    AUTHORITY_DAYS,
    IDENTITY_DAYS,
    LOCAL_HOSTS,
    PRINCIPALS,
    RENEW_WITHIN_DAYS,
    CertificateInvalid,
    Outcome,
    adopt_authority,
    announce_authority,
    ensure_certificates,
    issue,
    new_authority,
    read_certificate,
    retire_authorities,
    subject_name,
    tls_files,
)
from controlplane.tls import RenewingContext, client_context, server_context


def outcomes(folder: Path, **named: object) -> dict[str, Outcome]:
    return {one.name: one.outcome for one in ensure_certificates(folder, **named)}  # type: ignore[arg-type]


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "127.0.0.1") -> tuple[str | None, str | None]:
    """Shake hands in memory; returns whom the server and the client found at the other end."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = list(ends)
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                continue
    ends[1].write(b"x")  # In TLS 1.3 a client learns only now that it was let in.
    assert ends[0].read() == b"x"
    found_by_client, found_by_server = (end.getpeercert() for end in ends)
    assert found_by_client
    return subject_name(found_by_server) if found_by_server else None, subject_name(found_by_client)


def test_every_principal_gets_an_identity_that_only_its_owner_can_read(tmp_path: Path) -> None:
    assert outcomes(tmp_path) == dict.fromkeys(PRINCIPALS, Outcome.MADE)
    assert set(PRINCIPALS) == {"broker", "admin"} | {service.value for service in Service}
    for name in (*PRINCIPALS, "authority"):
        path = tmp_path / f"{name}.pem"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text().startswith("-----BEGIN PRIVATE KEY-----")  # PKCS#8, which the brokers need.
    assert "PRIVATE" not in (tmp_path / "ca.pem").read_text()
    assert outcomes(tmp_path) == dict.fromkeys(PRINCIPALS, Outcome.KEPT)


@pytest.mark.parametrize("host", LOCAL_HOSTS)
def test_two_services_know_each_other_by_name(tmp_path: Path, host: str) -> None:
    ensure_certificates(tmp_path)
    server, client = server_context(tls_files(tmp_path, "gateway")), client_context(tls_files(tmp_path, "runner"))
    assert handshake(server, client, host) == ("runner", "gateway")


def test_strangers_are_refused(tmp_path: Path) -> None:
    ensure_certificates(tmp_path / "ours")
    ensure_certificates(tmp_path / "theirs")
    server = server_context(tls_files(tmp_path / "ours", "gateway"))
    impostor = client_context(tls_files(tmp_path / "theirs", "runner"))
    impostor.load_verify_locations(tmp_path / "ours" / "ca.pem")
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate verify failed"):
        handshake(server, impostor)
    without = ssl.create_default_context(cafile=tmp_path / "ours" / "ca.pem")
    with pytest.raises(ssl.SSLError, match=r"(?i)peer did not return a certificate"):
        handshake(server, without)
    with pytest.raises(ssl.SSLError, match=r"(?i)mismatch"):
        handshake(server, client_context(tls_files(tmp_path / "ours", "runner")), "elsewhere.example")


def test_a_client_certificate_cannot_serve(tmp_path: Path) -> None:
    ensure_certificates(tmp_path)
    ensure_certificates(tmp_path, ["alice"], hosts=())
    usages = read_certificate(tmp_path / "alice.pem").extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert handshake(
        server_context(tls_files(tmp_path, "gateway")), client_context(tls_files(tmp_path, "alice"))
    ) == ("alice", "gateway")  # fmt: skip
    with pytest.raises(ssl.SSLError):
        handshake(server_context(tls_files(tmp_path, "alice")), client_context(tls_files(tmp_path, "runner")))


def test_what_ends_soon_is_renewed(tmp_path: Path) -> None:
    start = datetime.now(UTC)
    ensure_certificates(tmp_path, ["runner"], now=start)
    due = start + timedelta(days=IDENTITY_DAYS - RENEW_WITHIN_DAYS)
    assert outcomes(tmp_path, names=["runner"], now=due - timedelta(hours=1)) == {"runner": Outcome.KEPT}
    assert outcomes(tmp_path, names=["runner"], now=due) == {"runner": Outcome.RENEWED}
    expected = due + timedelta(days=IDENTITY_DAYS)
    assert abs(read_certificate(tmp_path / "runner.pem").not_valid_after_utc - expected) < timedelta(seconds=2)


def test_what_lacks_a_host_is_renewed(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["broker"])
    more = (*LOCAL_HOSTS, "kafka-1.internal", "10.0.0.7", "::1")
    assert outcomes(tmp_path, names=["broker"], hosts=more) == {"broker": Outcome.RENEWED}
    assert outcomes(tmp_path, names=["broker"], hosts=more) == {"broker": Outcome.KEPT}
    assert outcomes(tmp_path, names=["broker"]) == {"broker": Outcome.KEPT}  # It serves at more than is asked.


def test_a_new_authority_replaces_the_old_without_an_interruption(tmp_path: Path) -> None:
    names = ["gateway", "runner"]
    ensure_certificates(tmp_path, names)
    running, running_client = (
        server_context(tls_files(tmp_path, "gateway")),
        client_context(tls_files(tmp_path, "runner")),
    )
    expected = ("runner", "gateway")

    def everybody_meets_everybody() -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """One side has seen the change and the other not, in both ways; returns both as they are now."""
        now, client_now = as_now(running), as_now(running_client)
        for server in (before, now):
            for client in (client_before, client_now):
                assert handshake(server, client) == expected
        return now, client_now

    before, client_before = as_now(running), as_now(running_client)
    announce_authority(tmp_path)
    assert outcomes(tmp_path, names=names) == dict.fromkeys(names, Outcome.KEPT)
    before, client_before = everybody_meets_everybody()
    adopt_authority(tmp_path)
    assert outcomes(tmp_path, names=names) == dict.fromkeys(names, Outcome.RENEWED)
    before, client_before = everybody_meets_everybody()
    assert retire_authorities(tmp_path) == 1
    everybody_meets_everybody()
    assert handshake(running, running_client) == expected


def as_now(context: ssl.SSLContext) -> ssl.SSLContext:
    assert isinstance(context, RenewingContext)
    return context.fresh()


def test_a_renewal_that_was_cut_off_leaves_the_identity_in_hand(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ensure_certificates(tmp_path, ["gateway", "runner"])
    server, client = server_context(tls_files(tmp_path, "gateway")), client_context(tls_files(tmp_path, "runner"))
    whole = (tmp_path / "gateway.pem").read_bytes()
    (tmp_path / "gateway.pem").write_bytes(whole[: len(whole) // 2])
    assert handshake(server, client) == ("runner", "gateway")
    assert "cannot be used" in caplog.text
    (tmp_path / "gateway.pem").unlink()
    assert handshake(server, client) == ("runner", "gateway")


def test_a_retired_authority_is_no_longer_trusted(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["runner"])
    running, before = (
        server_context(tls_files(tmp_path, "runner")),
        as_now(client_context(tls_files(tmp_path, "runner"))),
    )
    announce_authority(tmp_path)
    adopt_authority(tmp_path)
    ensure_certificates(tmp_path, ["runner"])
    before.load_verify_locations(tmp_path / "ca.pem")
    assert handshake(running, before) == ("runner", "runner")
    retire_authorities(tmp_path)
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate verify failed"):
        handshake(running, before)  # The server has been running all along.


def test_an_announcement_that_was_cut_off_is_completed_before_it_counts(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["runner"])
    bundle = (tmp_path / "ca.pem").read_bytes()
    announce_authority(tmp_path)
    (tmp_path / "ca.pem").write_bytes(bundle)  # As a crash after step 1 leaves it.
    with pytest.raises(CertificateInvalid, match="cut off"):
        adopt_authority(tmp_path)
    announce_authority(tmp_path)
    adopt_authority(tmp_path)
    assert outcomes(tmp_path, names=["runner"]) == {"runner": Outcome.RENEWED}
    assert len(x509.load_pem_x509_certificates((tmp_path / "ca.pem").read_bytes())) == 2


def test_an_authority_that_ends_is_announced_then_succeeded(tmp_path: Path) -> None:
    start = datetime.now(UTC)
    ensure_certificates(tmp_path, ["runner"], now=start)
    first = (tmp_path / "authority.pem").read_bytes()
    end = start + timedelta(days=AUTHORITY_DAYS)
    ensure_certificates(tmp_path, ["runner"], now=end - timedelta(days=170))
    assert (tmp_path / "authority.pem").read_bytes() == first
    assert len(x509.load_pem_x509_certificates((tmp_path / "ca.pem").read_bytes())) == 2
    assert outcomes(tmp_path, names=["runner"], now=end - timedelta(days=89)) == {"runner": Outcome.RENEWED}
    assert (tmp_path / "authority.pem").read_bytes() != first


@pytest.mark.parametrize("name", ["", "a,CN=broker", "CN=broker", "Runner", "-x", "a/b", "../authority", "a" * 64])
def test_names_that_could_be_read_as_another_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CertificateInvalid, match="Expected a name"):
        issue(new_authority(datetime.now(UTC)), name, LOCAL_HOSTS, datetime.now(UTC), valid_days=1)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["runner"])
    (tmp_path / "runner.pem").write_text("nothing")
    with pytest.raises(CertificateInvalid, match=r"runner\.pem"):
        ensure_certificates(tmp_path, ["runner"])
    (tmp_path / "authority.pem").write_text("nothing")
    with pytest.raises(CertificateInvalid, match=r"authority\.pem"):
        ensure_certificates(tmp_path, ["runner"])
