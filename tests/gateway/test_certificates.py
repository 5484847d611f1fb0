"""Certificates: read and checked, renewed under a running gateway, and made for the local network."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.door.certificates import CertificateError, CertificateFiles, read_certificate
from gateway.door.self_signed import ensure_certificate, names_of, wanted_names
from gateway.door.tls import TlsGate, plain_http_answer
from protocol.process.settings import Settings, SettingsError, load_settings
from tests.helpers.certificates import Pair, make_pair

PAIR = make_pair()
OTHER = make_pair()


def replaced(certificate: bytes = PAIR.certificate, key: bytes = PAIR.key) -> Pair:
    return Pair(certificate, key, 0)


def der() -> bytes:
    return x509.load_pem_x509_certificate(PAIR.certificate).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (replaced(key=OTHER.key), "the key does not fit --tls-cert"),
        (replaced(certificate=OTHER.certificate + PAIR.certificate), "own certificate must come first"),
        (make_pair(password=b"secret"), "the key is encrypted"),
        (make_pair(begins=-9, ends=-1), "the certificate expired on"),
        (make_pair(begins=1), "is this machine's clock right?"),
        (replaced(PAIR.key, PAIR.certificate), "are the two flags exchanged?"),
        (replaced(key=PAIR.certificate), "are the two flags exchanged?"),
        (replaced(certificate=der()), "openssl x509 -inform der"),
        (replaced(certificate=b""), "no readable certificate"),
        (replaced(certificate=PAIR.certificate[:300]), "no readable certificate"),
        (replaced(key=PAIR.key[:100]), "no readable private key"),
        (replaced(key=b""), "no readable private key"),
    ],
)
def test_a_pair_that_cannot_serve_is_told_in_a_sentence(tmp_path: Path, pair: Pair, words: str) -> None:
    with pytest.raises(CertificateError, match=r"^--tls-(cert|key) /") as caught:
        read_certificate(CertificateFiles(*pair.write(tmp_path)))
    assert words in str(caught.value) and "secret" not in str(caught.value)


def test_a_certificate_with_a_key_of_an_unknown_kind_is_told(tmp_path: Path) -> None:
    """A certificate is read without its key, so a curve that nobody knows shows later."""
    content = der().replace(b"\x2a\x86\x48\xce\x3d\x03\x01\x07", b"\x2a\x86\x48\xce\x3d\x03\x01\x63")
    assert content != der()
    lines = base64.encodebytes(content)
    pair = replaced(b"-----BEGIN CERTIFICATE-----\n" + lines + b"-----END CERTIFICATE-----\n")
    with pytest.raises(CertificateError, match="a certificate with a key of this kind cannot be used"):
        read_certificate(CertificateFiles(*pair.write(tmp_path)))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    cert, key = PAIR.write(tmp_path)
    for files, words in (
        (CertificateFiles(tmp_path / "no.pem", key), "--tls-cert"),
        (CertificateFiles(cert, tmp_path / "no.pem"), "--tls-key"),
        (CertificateFiles(cert, tmp_path), "--tls-key"),
    ):
        with pytest.raises(CertificateError, match=f"^{words} .*: (No such file|Is a directory)"):
            read_certificate(files)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    cert, key = PAIR.write(tmp_path)
    key.chmod(0)
    with pytest.raises(CertificateError, match=r"--tls-key .*: Permission denied; let user \d+ read it"):
        read_certificate(CertificateFiles(cert, key))


def test_a_chain_and_one_file_for_both_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "both.pem"
    file.write_bytes(PAIR.key + PAIR.certificate + OTHER.certificate)
    assert read_certificate(CertificateFiles(file, file)).leaf.serial_number == PAIR.serial


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--tls-cert", "a.pem"], "--tls-cert: give --tls-key too"),
        (["--tls-key", "a.pem"], "--tls-key: give --tls-cert too"),
        (["--tls", "self-signed", "--tls-cert", "a", "--tls-key", "b"], "--tls self-signed: leave it out"),
        (["--tls", "on"], "--tls on: choose one of self-signed"),
    ],
)
def test_settings_that_do_not_go_together_are_told(flags: list[str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_settings(flags, env={})


# ------------------------------------------------------------------ renewal


@pytest.fixture
def gate(tmp_path: Path) -> TlsGate:
    cert, key = PAIR.write(tmp_path / "live")
    return TlsGate(Settings(tls_cert=cert, tls_key=key))


def test_a_renewed_pair_is_taken(gate: TlsGate, tmp_path: Path) -> None:
    before = gate.fingerprint
    gate.look()
    assert gate.fingerprint == before
    OTHER.write(tmp_path / "live")
    gate.look()
    assert gate.fingerprint != before


def test_links_that_are_pointed_elsewhere_are_followed(tmp_path: Path) -> None:
    """certbot keeps links in live/ and points them at the files of the newest certificate in archive/."""
    for number, pair in enumerate((PAIR, OTHER)):
        pair.write(tmp_path / f"archive{number}")
    live = tmp_path / "live"
    live.symlink_to(tmp_path / "archive0")
    gate = TlsGate(Settings(tls_cert=live / "cert.pem", tls_key=live / "key.pem"))
    before = gate.fingerprint
    live.unlink()
    live.symlink_to(tmp_path / "archive1")
    gate.look()
    assert gate.fingerprint != before


def half_of_a_pair(folder: Path) -> None:
    (folder / "cert.pem").write_bytes(make_pair().certificate)


def half_written(folder: Path) -> None:
    (folder / "cert.pem").write_bytes(OTHER.certificate[:200])


def removed(folder: Path) -> None:
    (folder / "key.pem").unlink()


def expired(folder: Path) -> None:
    make_pair(begins=-9, ends=-1).write(folder)


@pytest.mark.parametrize("break_it", [half_of_a_pair, half_written, removed, expired])
def test_a_bad_pair_keeps_the_old_one_and_is_told_once(
    gate: TlsGate, tmp_path: Path, break_it: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    before, context = gate.fingerprint, gate.context.current
    break_it(tmp_path / "live")
    for _ in range(3):
        gate.look()
    assert len(caplog.messages) == 1 and "still serves" in caplog.messages[0]
    assert gate.fingerprint == before and gate.context.current is context
    OTHER.write(tmp_path / "live")
    gate.look()
    assert gate.fingerprint != before
    break_it(tmp_path / "live")
    gate.look()
    assert len(caplog.messages) == 2, "a fault that comes back is told again"


def test_an_end_that_is_near_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cert, key = make_pair(ends=3).write(tmp_path)
    gate = TlsGate(Settings(tls_cert=cert, tls_key=key))
    for _ in range(3):
        gate.look()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "renew it" in caplog.text


# ------------------------------------------------------------------ self-signed

NAMES = ["localhost", "127.0.0.1", "::1", "box", "box.local", "192.168.1.5", "fd00::5"]


def test_the_self_signed_certificate_is_as_browsers_want_it(tmp_path: Path) -> None:
    files, made = ensure_certificate(NAMES, tmp_path / "own")
    leaf = read_certificate(files).leaf
    assert made and names_of(leaf) == set(NAMES)
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(files.key.parent.stat().st_mode) == 0o700
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= timedelta(days=397)
    extensions = leaf.extensions
    assert ExtendedKeyUsageOID.SERVER_AUTH in extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.subject == leaf.issuer


def test_it_is_kept_until_a_name_is_missing_or_the_end_is_near(tmp_path: Path) -> None:
    files, _ = ensure_certificate(NAMES, tmp_path)
    first = files.key.read_bytes()

    def after(names: list[str], days: float = 0) -> bytes:
        ensure_certificate(names, tmp_path, datetime.now(timezone.utc) + timedelta(days=days))
        return files.key.read_bytes()

    assert after(NAMES) == after(NAMES[:4], days=365) == first
    assert after([*NAMES, "fd00::6"]) == first, "IPv6 addresses of a day bring no warning back"
    second = after([*NAMES, "10.0.0.7"])
    assert second != first
    third = after(NAMES[:4], days=367)
    assert third not in (first, second)
    files.key.chmod(0o644)
    assert after(NAMES[:4], days=367) != third, "a key that others could read is not kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["self-signed.pem"]


def test_a_broken_file_is_made_anew(tmp_path: Path) -> None:
    files, _ = ensure_certificate(NAMES, tmp_path)
    files.key.write_bytes(files.key.read_bytes()[:-200])
    assert ensure_certificate(NAMES, tmp_path)[1]
    read_certificate(files)


def test_a_folder_that_cannot_be_made_or_is_a_link_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for folder in (tmp_path / "file" / "own", tmp_path / "link"):
        with pytest.raises(CertificateError, match=r"--tls self-signed: .*XDG_CONFIG_HOME"):
            ensure_certificate(NAMES, folder)


def test_names_are_those_of_the_machine_and_those_given() -> None:
    names = wanted_names("0.0.0.0", ["face.example", "not a name", "[::1]", "10.1.1.1"])
    assert {"localhost", "127.0.0.1", "::1", "face.example", "10.1.1.1"} <= set(names)
    assert "0.0.0.0" not in names and "not a name" not in names


# ------------------------------------------------------------------ plain HTTP on the TLS port


@pytest.mark.parametrize(
    ("head", "location"),
    [
        (b"abc HTTP/1.1\r\nHost: box.local:8443\r\nAccept: */*\r\n\r\n", b"https://box.local:8443/"),
        (b"abc HTTP/1.1\r\nhost:\t[fd00::5]:8443\r\n\r\n", b"https://[fd00::5]:8443/"),
        (b"abc HTTP/1.1\r\nHost: a b\r\n\r\n", None),
        (b"abc HTTP/1.1\r\nX: 1\r\n\r\nHost: in.body\r\n", None),
        (b"", None),
    ],
)
def test_plain_http_is_sent_to_https(head: bytes, location: bytes | None) -> None:
    lines = plain_http_answer(head).partition(b"\r\n\r\n")[0].split(b"\r\n")
    found = [line.partition(b": ")[2] for line in lines if line.startswith(b"Location")]
    assert found == ([location] if location else [])
    assert lines[0].startswith(b"HTTP/1.1 307" if location else b"HTTP/1.1 400")
