"""The fields of the settings, with their defaults, help and limits.

A field's annotation says how its flag, variable and file entry are read (`values.kind_of`).
"""

# ruff: noqa: RUF009 (`setting` makes a dataclass field, as `field` does)

from __future__ import annotations

import os
import typing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from protocol.hop.endpoints import IPC_PATH_BYTES
from protocol.process.addresses import is_loopback
from protocol.process.settings import door
from protocol.process.settings.places import ROOT, default_log_dir, official_config, state_dir
from protocol.process.settings.values import MAX_WORKERS, SettingsError, ValueKind, check_limits, kind_of
from protocol.wire.clock import SAMPLE_RATE, USUAL_CLIP_FRAMES

if TYPE_CHECKING:
    from protocol.hop.keys import RunKey

T = TypeVar("T")

#: The configuration of the bundled model.
BUNDLED_CONFIG = ROOT / "demo/bundled/model/infer_bundled.yaml"

#: Sessions at once that are ever served where --max-sessions is not given.
MOST_MEASURED_SESSIONS = 32

#: Stands for a path that depends on another setting.
UNSET = Path()


def setting(default: T, text: str, **limits: Any) -> T:
    """A field of `Settings`: its default, its help, and limits as `check_limits` takes them."""
    return field(default=default, metadata={"help": text, **limits})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. A field is the flag `--its-name` and the variable `ECHOMIMIC_ITS_NAME`.

    Raises:
        SettingsError: a value breaks its limits.
    """

    host: str = setting(
        "127.0.0.1",
        "address of the page; 0.0.0.0 or :: for all of this machine's; beyond loopback it needs tokens"
        " (`python -m scripts.tokens add NAME` makes one) or --no-auth",
        check=door.check_host,
    )
    port: int = setting(8080, "port of the page", low=1, high=65535)

    # Who may come in, and from where.
    token_file: Path | None = setting(
        None,
        "file of the tokens that open the page; if not given, no token is asked for on loopback, and beyond"
        " it the file that `python -m scripts.tokens add NAME` makes counts",
    )
    auth: bool = setting(
        True, "beyond loopback let nobody in without a token; --no-auth lets in everyone who reaches the port"
    )
    allowed_hosts: tuple[str, ...] = setting(
        (),
        "names under which the page may be opened, besides this machine's own: face.example,"
        " .example (and all below it), with or without a port",
        check=door.check_allowed_host,
    )
    allowed_origins: tuple[str, ...] = setting(
        (), "other sites whose pages may connect, such as https://app.example", check=door.check_origin
    )
    embed_origins: tuple[str, ...] = setting(
        (), "other sites whose pages may hold the page in a frame", check=door.check_origin
    )
    root_path: str | None = setting(
        None, "path below which a proxy shows the page, such as /face", check=door.check_root_path
    )
    trusted_proxies: tuple[str, ...] = setting(
        (),
        "addresses or networks of proxies whose forwarded address, scheme and host are believed",
        check=door.check_network,
    )

    # TLS: a page on another machine gets a microphone over HTTPS only.
    tls: str | None = setting(
        None,
        "self-signed: HTTPS with a certificate made for this machine's names and addresses in its network",
        choices=("self-signed",),
    )
    tls_cert: Path | None = setting(
        None, "HTTPS with this certificate, followed by those of its issuers (PEM); read anew when renewed"
    )
    tls_key: Path | None = setting(None, "private key of --tls-cert, not encrypted (PEM)")

    # Sessions: sound in, frames out.
    audio_margin: int = setting(2, "video frames of audio context on each side", low=0, high=8)
    sample_rate: int = setting(SAMPLE_RATE, "rate of a version 1 client's PCM, Hz", low=8000, high=192000)
    fps: int | None = setting(
        None, "frame rate; if not given, the highest of 24, 12 and 8 that this machine holds", low=1, high=60
    )
    clip_frames: int | None = setting(
        None,
        "frames of a clip at 24 fps; if not given, 3, 4 or 6 where a CPU holds them with the bundled model,"
        " what --quality auto picks on a GPU, and 12 otherwise",
        low=1,
        high=24,
    )
    idle_flush: float = setting(
        0.3, "seconds without speech data before a begun clip is finished", low=0.05, high=10
    )
    max_sessions: int | None = setting(
        None,
        "sessions at once, at most; if not given, as many as this machine is measured to serve",
        low=1,
        high=1000,
    )
    mark_generated: bool = setting(
        True,
        "say on the page, and by machine in each picture, that the face is generated; --no-mark-generated"
        " leaves it to you to say so",
    )
    jpeg_quality: int = setting(90, "JPEG quality of the frames", low=1, high=100)
    video: str = setting(
        "auto",
        "video for clients that take it: x264 (H.264; GPL), openh264 (H.264), vp8, auto for the first of them"
        " that PyAV has, or off: every client gets JPEG",
        choices=("auto", "x264", "openh264", "vp8", "off"),
    )

    # Recordings, which clients ask for.
    record: bool = setting(True, "let clients record their own sessions; --no-record lets none")
    record_dir: Path | None = setting(
        None,
        "folder of the recordings; ~/.local/state/echomimic-live/recordings if not given",
    )
    record_minutes: int = setting(30, "longest recording, in minutes", low=1, high=1440)
    record_mb: int = setting(256, "largest recording, in megabytes", low=1, high=100000)
    record_keep: int = setting(20, "recordings to keep; older ones are deleted", low=1, high=10000)
    record_hours: int = setting(24, "hours after which a recording is deleted", low=1, high=87600)
    c2pa_cert: Path | None = setting(
        None, "sign recordings (C2PA) with this certificate, followed by those of its issuers (PEM)"
    )
    c2pa_key: Path | None = setting(None, "private key of --c2pa-cert, not encrypted (PEM)")

    # The model.
    model: str = setting(
        "bundled",
        "bundled, or official: EchoMimic-v2's own weights, found on this machine or fetched",
        choices=("bundled", "official"),
    )
    model_dir: Path | None = setting(
        None, "folder of the official weights (pretrained_weights/ layout); missing files are fetched into it"
    )
    accept_licences: bool = setting(False, "accept the licences of the official weights without a question")
    config: Path = setting(BUNDLED_CONFIG, "model configuration (infer_acc.yaml layout)")
    reference_image: tuple[Path, ...] = setting((), "reference image(s); the bundled avatars if none")
    avatar_dir: Path = setting(ROOT / "demo/bundled/avatars", "folder of bundled avatars")
    own_avatars: int = setting(
        12,
        "avatars that each token, or this machine without tokens, may bring and keep; 0: none",
        low=0,
        high=200,
    )
    own_avatar_dir: Path | None = setting(
        None, "folder of the avatars that people bring; a folder of this user's state if not given"
    )
    pose_dir: tuple[Path, ...] = setting((), "pose folder(s) or .npz; the bundled poses if none")
    use_init_latent: bool = setting(
        True, "keep a session's state between its clips, so that they join; without it each has its own noise"
    )
    session_state: str = setting(
        "auto",
        "what is kept: session-noise, one noise for all clips of a session; zero-noise, zeros for all clips;"
        " seed-mix, 0.6 of the last latent in the next clip's first frame; new-noise, nothing; or auto:"
        " zero-noise where a model of one step takes more, else session-noise",
        choices=("auto", "session-noise", "zero-noise", "seed-mix", "new-noise"),
    )
    silence: str = setting(
        "loop",
        "clips without a voice: loop, denoised once for each avatar and gesture and then shown again;"
        " denoise, each is denoised",
        choices=("loop", "denoise"),
    )
    quality: str = setting(
        "auto",
        "auto: on a GPU, warm-up times the card and picks whatever of --compile-unet, --tier, --decoder,"
        " --late-start, --clip-frames and --fps is not given; fixed: they have their usual values",
        choices=("auto", "fixed"),
    )
    late_start: int | None = setting(
        None,
        "sampling steps to skip, except where a clip has none to start from; if not given, none, or what"
        " --quality auto picks",
        low=0,
        high=99,
    )
    compile_unet: bool | None = setting(
        None,
        "compile the denoiser; on CUDA use its own fast path; if not given, only where --quality auto picks",
    )
    tier: str | None = setting(
        None,
        "arithmetic on CUDA: exact, or fast, which approximates (the denoiser only with --compile-unet); if"
        " not given, exact, or what --quality auto picks",
        choices=("exact", "fast"),
    )
    decoder: str | None = setting(
        None,
        "decoder: kl, the model's own VAE, or tiny, AutoencoderTiny from the folder taesd beside it "
        "(huggingface.co/madebyollin/taesd), faster and less exact; if not given, kl, or what --quality auto"
        " picks",
        choices=("kl", "tiny"),
    )
    steps: int | None = setting(None, "denoising steps; the model's if not given", low=1, high=100)
    cfg: float | None = setting(None, "guidance scale; the model's if not given", low=1, high=30)
    width: int | None = setting(
        None, "width of the frames; the model's if not given", low=64, high=2048, multiple=8
    )
    height: int | None = setting(
        None, "height of the frames; the model's if not given", low=64, high=2048, multiple=8
    )
    seed: int = setting(0, "seed of the noise", low=0, high=2**63 - 1)
    passthrough: bool = setting(False, "no denoiser: measure the cost of the plumbing alone")

    # Texts that the avatar speaks.
    voice_engine: str = setting(
        "auto",
        "program or service that makes speech of texts: espeak-ng or flite from this machine, piper with a"
        " voice file, openai for a service at --voice-url, none, or auto for the first that there is",
        choices=("auto", "none", "espeak-ng", "flite", "piper", "openai"),
    )
    voice: str | None = setting(
        None, "voice of texts, by the engine's name for it; for piper the path of its .onnx file"
    )
    voice_url: str | None = setting(
        None,
        "address of an OpenAI-compatible service, such as http://127.0.0.1:8880/v1; the key is read from"
        " the variable OPENAI_API_KEY",
        check=door.check_service,
    )
    voice_model: str = setting("tts-1", "model that the service at --voice-url is asked for")

    # The machine.
    encoders: int = setting(1, "encoder workers to start", low=0, high=MAX_WORKERS)
    audio_workers: int = setting(1, "audio workers to start", low=1, high=MAX_WORKERS)
    gpu_devices: tuple[str, ...] = setting(
        ("auto",),
        "devices of the GPU workers, one each, such as cuda:0,cuda:1 or cpu; a + makes a team of several that"
        " share each clip, such as cuda:0+cuda:1",
        most=MAX_WORKERS,
    )
    encoder_devices: tuple[str, ...] = setting(
        ("auto",), "devices that the encoders take in turn", most=MAX_WORKERS
    )
    dtype: str = setting(
        "auto", "arithmetic of the models", choices=("auto", "float32", "bfloat16", "float16")
    )
    cpu_engine: str = setting(
        "auto",
        "library that computes on a CPU: torch, openvino, openvino-int8 (decoder, and without bfloat16"
        " denoiser, in eight bits, where the model has ranges for that), or auto for the fastest of them",
        choices=("auto", "torch", "openvino", "openvino-int8"),
    )
    threads: int = setting(0, "threads of each model process; 0 is half of the cores", low=0, high=1024)

    # The run: files, sockets and failures.
    run_dir: Path = setting(
        UNSET,
        "folder of the sockets, a new or an empty one, removed afterwards if the run made it;"
        " one with other files is refused; /tmp/echomimic-live-UID-PORT if not given",
    )
    log_dir: Path = setting(
        default_log_dir(os.environ),
        "folder of the logs; other files in it stay as they are; logs/ beside the code if not given,"
        " for an installed copy ~/.local/state/echomimic-live/logs",
    )
    log_max_mb: int = setting(20, "megabytes of a log file; a run goes on in a new one", low=1, high=10000)
    log_keep: int = setting(40, "log files to keep, those of earlier runs too", low=1, high=10000)
    log_days: int = setting(30, "days for which log files are kept", low=1, high=10000)
    log_level: str = setting("INFO", "least severe log line", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    transport: str = setting("ipc", "sockets between the stages", choices=("ipc", "tcp"))
    tcp_base_port: int = setting(9000, "first port of --transport tcp", low=1024, high=65535 - 300)
    credit: int = setting(2, "jobs that a worker holds at once from one upstream", low=1, high=64)
    dead_after: float = setting(5.0, "seconds of silence before a worker is given up", low=1, high=600)
    stall_after: float = setting(60.0, "seconds on one job before a worker is given up", low=1, high=86400)
    worker_index: int = setting(0, "number of this worker in its stage", low=0, high=MAX_WORKERS - 1)
    shared_dir: Path = setting(ROOT.parent / "shared", "folder of the tests' golden data")

    def __post_init__(self) -> None:
        run_dir = default_run_dir(self.port) if self.run_dir == UNSET else self.run_dir.absolute()
        object.__setattr__(self, "run_dir", run_dir)  # the class is frozen
        for f in fields(self):
            check_limits(flag(f.name), getattr(self, f.name), f.metadata)
        if self.token_file is None and self.auth and not is_loopback(self.host):
            object.__setattr__(self, "token_file", door.usual_token_file(os.environ))
        door.check_admission(self.host, self.auth, self.token_file is not None)
        door.check_tls(self.tls, self.tls_cert is not None, self.tls_key is not None)
        self._choose_model()
        if self.transport == "ipc":
            longest = len(os.fsencode(self.run_dir / f"latents.{MAX_WORKERS - 1}"))
            if longest > IPC_PATH_BYTES:
                raise SettingsError(
                    f"--run-dir {self.run_dir}: its sockets' paths would have {longest} bytes and the system"
                    f" takes {IPC_PATH_BYTES}; choose a shorter folder"
                )

    @property
    def frames_a_clip(self) -> int:
        """Frames of a clip at 24 fps, where nothing else is picked."""
        return self.clip_frames or USUAL_CLIP_FRAMES

    @property
    def recordings_folder(self) -> Path:
        """The folder of the recordings."""
        return self.record_dir or state_dir(os.environ) / "recordings"

    @property
    def serves_tls(self) -> bool:
        """Whether the gateway's port speaks HTTPS."""
        return self.tls is not None or self.tls_cert is not None

    def _choose_model(self) -> None:
        """Let `--model official` stand for its configuration."""
        if self.model != "official":
            if self.model_dir is not None:
                raise SettingsError(
                    "--model-dir is the folder of the official weights: give --model official too"
                )
            return
        own = official_config(os.environ, self.model_dir)
        if self.config not in (BUNDLED_CONFIG, own):
            raise SettingsError(f"--config {self.config}: --model official has its own; give one of the two")
        object.__setattr__(self, "config", own)

    @property
    def most_sessions(self) -> int:
        """Sessions that there can ever be at once, whatever is measured."""
        return self.max_sessions or MOST_MEASURED_SESSIONS

    def endpoint(self, name: str, index: int | None = None) -> str:
        """The URL of a hop: of `clips` that of an audio worker, of `latents` that of a GPU worker."""
        offsets = {"pcm": 0, "results": 1, "sentences": 2, "clips": MAX_WORKERS, "latents": 2 * MAX_WORKERS}
        if name not in offsets or (index is None) != (name in ("pcm", "results", "sentences")):
            raise ValueError(f"no endpoint {name!r} with index {index}")
        if not 0 <= (index or 0) < MAX_WORKERS:
            raise ValueError(f"endpoint {name}: index {index} is not 0 to {MAX_WORKERS - 1}")
        if self.transport == "tcp":
            return f"tcp://127.0.0.1:{self.tcp_base_port + offsets[name] + (index or 0)}"
        return f"ipc://{self.run_dir / (name if index is None else f'{name}.{index}')}"

    def hop_key(self) -> RunKey | None:
        """The key for every socket of the run. None with ipc, which the run folder's mode protects.

        Raises:
            EndpointError: the key cannot be read or made.
        """
        if self.transport == "ipc":
            return None
        from protocol.hop.keys import load_key  # here, so that reading settings loads no ZeroMQ

        return load_key(self.run_dir)

    def endpoints(self, name: str) -> list[str]:
        """Every URL that a worker fed by hop `name` connects to."""
        counts = {"clips": self.audio_workers, "latents": len(self.gpu_devices)}
        if name not in counts:
            return [self.endpoint(name)]
        return [self.endpoint(name, index) for index in range(counts[name])]


def is_open_to_all(settings: Settings) -> bool:
    """Whether everyone who reaches the port may use the page, beyond this machine."""
    return settings.token_file is None and not is_loopback(settings.host)


def kinds() -> dict[str, ValueKind]:
    """How each field's values are read, by the field's name and from its annotation."""
    return {name: kind_of(annotation) for name, annotation in typing.get_type_hints(Settings).items()}


def default_run_dir(port: int) -> Path:
    """Derived from user and port alone, so that a worker started by hand finds the run."""
    return Path(f"/tmp/echomimic-live-{os.getuid()}-{port}")


def flag(name: str) -> str:
    """The command-line flag of a field."""
    return "--" + name.replace("_", "-")
