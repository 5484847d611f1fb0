"""The folder of the recordings: only the project's own files are ever read or deleted. Signatures."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.recording.signing import Signer
from gateway.recording.store import Recording, RecordingStore
from protocol.process.settings import ROOT
from protocol.wire.browser import VideoMessage
from protocol.wire.generated import DIGITAL_SOURCE_TYPE

HOUR = 3600.0


def store(folder: Path, now: float = 0.0, keep: int = 2, hours: float = 10) -> RecordingStore:
    return RecordingStore(folder, keep, hours, lambda: now)


def made(one: RecordingStore, began: float, session: str = "s", owner: str = "") -> Recording:
    stem = one.new_stem()
    recording = Recording(f"{stem.name}.mp4", session, owner, began, True)
    one.path(recording).write_bytes(b"film")
    one.put(recording)
    return recording


def test_recordings_outlast_the_gateway_and_go_by_number_and_age(tmp_path: Path) -> None:
    first = store(tmp_path / "made")
    names = [made(first, began * HOUR).name for began in range(4)]
    again = store(tmp_path / "made", now=5 * HOUR)
    assert [one.name for one in again.of_session("s", "")] == names
    again.sweep({names[0]})  # it is written now
    assert [one.name for one in again.of_session("s", "")] == [names[0], *names[2:]]
    old = store(tmp_path / "made", now=13.5 * HOUR)
    old.sweep(set())
    assert not list((tmp_path / "made").iterdir())


def test_a_recording_is_found_by_its_owner_alone(tmp_path: Path) -> None:
    one = store(tmp_path / "made")
    mine = made(one, 0.0, owner="a")
    assert (
        one.find(mine.name, "a") == mine and one.find(mine.name, "b") is None and one.find("x", "a") is None
    )
    assert one.of_session("s", "b") == []


def test_files_of_others_stay_whatever_lies_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    one = store(folder)
    mine = made(one, 0.0)
    strange = "a" * 22 + ".mp4"
    files = {
        "holiday.mp4": "film", "holiday.mp4.json": json.dumps({"made_by": "echomimic-live"}),
        strange: "film", f"{strange}.json": json.dumps({"name": strange, "began": 0.0}),
        "notes.json": "[" * 5000,
    }  # fmt: skip
    for name, text in files.items():
        (folder / name).write_text(text)
    link = "b" * 22 + ".mp4"
    (folder / link).symlink_to(tmp_path / "elsewhere.mp4")
    (tmp_path / "elsewhere.mp4").write_text("film")
    facts = json.loads((folder / f"{mine.name}.json").read_text())
    (folder / f"{link}.json").write_text(json.dumps({**facts, "name": link}))
    (folder / "up.json").write_text(json.dumps({**facts, "name": "../elsewhere.mp4"}))
    store(folder, now=1000 * HOUR).sweep(set())
    left = {path.name for path in folder.iterdir()}
    assert left == {*files, link, f"{link}.json", "up.json"} and (tmp_path / "elsewhere.mp4").exists()


def chain() -> tuple[bytes, bytes]:
    """A certificate for signing and its issuer's, PEM, and its key."""
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test")])
    root_name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test root")])
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    day = datetime.datetime(2026, 1, 1)

    def certificate(subject: x509.Name, public: ec.EllipticCurvePublicKey, ca: bool) -> x509.Certificate:
        usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
        builder = (
            x509.CertificateBuilder(root_name, subject, public, x509.random_serial_number())
            .not_valid_before(day)
            .not_valid_after(day + datetime.timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca, None), True)
            .add_extension(usage, True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False)
        )
        if not ca:
            purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(purpose, False)
        return builder.sign(root_key, hashes.SHA256())

    made = [certificate(name, key.public_key(), False), certificate(root_name, root_key.public_key(), True)]
    pem = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in made)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem, private


def test_a_signed_recording_says_that_a_model_made_it_and_plays(tmp_path: Path) -> None:
    c2pa = pytest.importorskip("c2pa")
    av = pytest.importorskip("av")
    if "libx264" not in av.codecs_available:
        pytest.skip("this PyAV has no x264")
    from encoder_worker.video import ENCODERS
    from gateway.recording.part import RecordingPart
    from gateway.recording.timeline import PicturePiece, SoundPiece
    from tests.encoder_worker.test_video import coded, moving

    clip = [
        VideoMessage(p.data, 0, 0, i, 12, i * 16000 // 24, p.codec, p.key)
        for i, p in enumerate(coded(ENCODERS["x264"], moving(12)))
    ]
    part = RecordingPart(tmp_path / "film", clip[0], 16_000, 0, generated=True)
    for each in clip:
        part.add_picture(PicturePiece(each.pts, each))
    part.add_sound(SoundPiece(0, np.zeros(8000, np.float32)))
    part.finish()
    before = part.path.read_bytes()
    Signer(*chain()).sign(part.path)
    assert part.path.read_bytes() != before
    with c2pa.Reader(str(part.path)) as reader:
        report = json.loads(reader.json())
    manifest = report["manifests"][report["active_manifest"]]
    (actions,) = [a for a in manifest["assertions"] if a["label"].startswith("c2pa.actions")]
    assert actions["data"]["actions"][0]["digitalSourceType"] == DIGITAL_SOURCE_TYPE
    with av.open(str(part.path)) as file:
        assert len(list(file.decode(video=0))) == 12
    # one flipped byte of a picture, and the signature does not hold
    content = bytearray(part.path.read_bytes())
    content[content.rindex(b"mdat") + 200] ^= 1
    part.path.write_bytes(content)
    with c2pa.Reader(str(part.path)) as reader:
        assert json.loads(reader.json())["validation_state"] == "Invalid"


def test_a_key_that_does_not_serve_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"film")
    Signer(b"none", b"none").sign(path)
    Signer().sign(path)
    assert path.read_bytes() == b"film" and os.listdir(tmp_path) == ["film.mp4"]


def test_a_gateway_starts_without_pyav_and_without_its_memory() -> None:
    code = "import sys; import gateway.gateway; assert not {'av', 'c2pa', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
