"""Client of echomimic-live: sound goes up, and a face that speaks it comes back, picture by picture."""

from echomimic_live_client.decoding import VideoDecoder
from echomimic_live_client.errors import ClientError, ConnectionLost, Refused, SessionEnded, WireError
from echomimic_live_client.inbox import Frame, Sound
from echomimic_live_client.moments import Moment, moments
from echomimic_live_client.recording import Recorder, record
from echomimic_live_client.says import Say
from echomimic_live_client.server_recording import RecordedFile, ServerRecording
from echomimic_live_client.session import Session, connect
from echomimic_live_client.wire import Ready, Status

__all__ = [
    "ClientError",
    "ConnectionLost",
    "Frame",
    "Moment",
    "Ready",
    "RecordedFile",
    "Recorder",
    "Refused",
    "Say",
    "ServerRecording",
    "Session",
    "SessionEnded",
    "Sound",
    "Status",
    "VideoDecoder",
    "WireError",
    "connect",
    "moments",
    "record",
]
