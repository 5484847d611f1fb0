"""The server's sentences for people, each with a code, so that a page can say it in another language.

A sentence travels between processes as plain English. Where it leaves the gateway, `coded` finds its code and
its values again. A client that does not know the code shows the sentence.
"""

from __future__ import annotations

import functools
import re

#: Code → the sentence in English. Names in braces are values.
PHRASES = {
    # Outages and lower rates: `notice`.
    "outage_audio_worker": "The part that listens stopped and is starting again. The sound goes on.",
    "outage_gpu_worker": "The face model stopped and is starting again. The sound goes on.",
    "outage_encoder_worker": "The part that draws stopped and is starting again. The sound goes on.",
    "rate_busy": "This machine is busy: {fps} frames a second are shown.",
    "rate_kept": "--fps {fps} is kept, but denoising a clip takes {takes} s and it lasts {lasts} s",
    "rate_held": "this machine holds {fps} frames per second: {why}",
    "rate_too_slow": "this machine is too slow even for {fps} frames per second: {why}",
    # Ends of sessions: `message` of `error` with `bad_option`, `forbidden` and `failed`.
    "no_avatar": "there is no avatar {name}; there are {known}",
    "no_pose": "there is no pose {name}; there are {known}",
    "option_fps": "fps {fps}: give one of {known}",
    "option_sample_rate": "sample_rate {rate}: give one of {known}",
    "option_one_of": "{name}: give one of {known}",
    "option_video": "video: give a list of at most {most} names of codecs",
    "option_name": "{name}: give a name of 1 to 64 characters",
    "option_whole": "{name}: give a whole number from {low} to {high}",
    "avatar_forbidden": "this token may not use the avatar {name}",
    "avatars_forbidden": "this server has none of the avatars that this token may use",
    "failed_gateway": "the gateway has a fault",
    "failed_stage": "internal error in {stage}: {why}",
    "failed_avatar_gone": "the avatar {name} was removed, or never was",
    "failed_clip_long": (
        "a clip of {frames} frames at {fps} frames a second lasts longer than 1.5 s; ask for fewer frames or"
        " a higher rate"
    ),
    "failed_changed": "the {what} changed while the session ran; start it anew",
    "failed_clip_frames": "a clip of {frames} frames: this model takes {most}",
    "failed_tokens": "{count} audio tokens a frame, it must be {wanted}",
    "failed_latents": "latents have shape {shape}; this VAE takes {channels} channels",
    "failed_latents_size": "latents are {size}, this decoder takes {wanted}",
    "failed_no_decoder": "no decoder of that size: {why}",
    # The same with `bad_audio` and `bad_message`.
    "audio_cut": "{bytes} bytes is not whole {kind} samples ({each} bytes each)",
    "audio_not_finite": "the audio holds NaN or infinite samples",
    "audio_scale": "sample of size {peak}: send floats in -1..1 (int16 / 32768)",
    "message_long": "text of {count} characters; at most {most} are read",
    "message_no_json": "the text is not JSON",
    "message_no_object": "the text is not a JSON object",
    "message_no_type": 'the text has no "type"',
    "message_hello_again": "hello comes once, as the first message",
    "message_resume": "resume: give an object with the token of the last ready",
    "message_record": "record: give an action, {known}",
    "message_say_text": "say: give a text of 1 to {most} characters",
    "message_say_id": "say: give an id of at most {most} characters",
    "message_say_voice": "say: a voice is named by letters, digits, + - and _",
    "message_kind": "unknown message kind {kind}",
    "message_short": "message of {bytes} bytes is shorter than its header",
    "message_codec": "unknown codec {codec} in a message of kind {kind}",
    # Ends of texts: `message` of `say_ended`.
    "say_off": "texts are switched off here (--voice-engine none)",
    "say_no_engine": (
        "this server has no speech engine: install one (apt-get install espeak-ng, or flite), or name a"
        " service by --voice-url"
    ),
    "say_none": "this server speaks no texts",
    "say_too_much": "too much text waits to be spoken",
    "say_no_word": "the text has no word",
    "say_no_answer": "no speech engine answered within {seconds} s",
    "say_one_voice": "this server has one voice, and none that is named {voice}",
    "say_no_voice": "{engine} has no voice {voice}; it has {voices}",
    "say_engine_failed": "{engine} failed with status {status}: {why}",
    # Recordings: `reason`.
    "recording_stopped": "stopped",
    "recording_over": "the session ended",
    "recording_rate": "the rate of the sound changed",
    "recording_server": "the server stopped",
    "recording_long": "it is as long as this server allows",
    "recording_large": "it is as large as this server allows",
    "recording_disk": "the disk is too slow",
    "recording_unwritable": "it cannot be written",
    "recording_pictures": "the pictures changed: another file goes on",
    "recording_empty": "nothing was played while it was recorded",
    "recording_none": "this session is not recorded",
    "recording_already": "this session is recorded already",
    "recording_early": "the session has not begun",
    "recording_many": "{most} sessions are recorded, and more are not possible here",
    "recording_folder": "the folder of the recordings cannot be used: {why}",
    "recording_off": "this server does not record",
    "recording_lacks": "this server cannot record: it lacks PyAV (the extra `video`)",
    # Own avatars: `warning`, and refusals.
    "warning_figures": (
        "This model animates drawn figures of its own kind, and this picture would come out as a smear."
        " A photo needs the official weights."
    ),
    "warning_little": (
        "This model does not keep much of this picture. Try another crop, or one person from the front."
    ),
    "picture_part": (
        "the chosen part has {width}×{height} pixels; choose a larger part, or send a picture with more"
        " pixels: at least {least} each way"
    ),
    "picture_slow": "it takes longer than {seconds} s to read; give a smaller picture",
    "picture_memory": "there is not enough memory to read it; give a smaller picture",
    "picture_broken": "it cannot be read: it is damaged, or takes too much memory; save it as PNG or JPEG",
    "picture_decoder": "it cannot be read: its decoder failed",
    "picture_pixels": "{size}more than {most} million pixels; give a smaller picture",
    "picture_empty": "is empty; copy the picture again",
    "picture_damaged": "cannot be read as a picture: it is damaged or cut short ({why}); copy it again",
    "picture_format": (
        "cannot be read as a picture: it is a file of the format {format}; save it as PNG or JPEG"
    ),
    "picture_raw": "cannot be read as a picture: it is a camera's raw picture; save it as PNG or JPEG",
    "picture_video": "cannot be read as a picture: it is a video; save one of its pictures as PNG or JPEG",
    "picture_page": "is a web page and not the file: {what_to_do}",
    "picture_pointer": "is a Git LFS pointer: run git lfs pull",
    "picture_not_read": (
        "cannot be read as a picture: it is damaged or cut short, or of a kind that is not read; copy it"
        " again, or save it as PNG"
    ),
    "picture_unknown": (
        "cannot be read as a picture: its format is unknown or its beginning is damaged; save it as PNG or"
        " JPEG"
    ),
    "body_long": "{bytes} bytes are more than {most}",
    "body_late": "it did not come within {seconds} s",
    "body_none": "Send the picture's file as the request's body.",
    "avatars_room": "this server has no room for more avatars",
    "avatars_kept": "{most} avatars are kept already; remove one first",
    "avatars_unwritten": "it cannot be written: {why}",
    "avatars_busy": "Other pictures are being taken in. Try again in a moment.",
    "avatars_gone": "There is no such avatar of yours.",
    "avatars_no_preview": "The stages have no room for a preview now.",
}
_NAME = re.compile(r"\{(\w+)\}")

#: `code` and `values` of a sentence. Empty where it has no code.
PhraseFields = dict[str, object]


def phrase(code: str, **values: object) -> str:
    """The sentence of a code in English."""
    return PHRASES[code].format(**values)


@functools.lru_cache(maxsize=256)
def _found(text: str) -> tuple[str, dict[str, str]] | None:
    for code, pattern in _patterns().items():
        if (match := pattern.fullmatch(text)) is not None:
            return code, match.groupdict()
    return None


def coded(text: str) -> PhraseFields:
    """The code of a sentence, and its values as texts. Empty for a sentence that `PHRASES` does not have."""
    found = _found(text) if text else None
    return {} if found is None else {"code": found[0], "values": dict(found[1])}


@functools.cache
def _patterns() -> dict[str, re.Pattern[str]]:
    """Code → what its sentences look like. Those with the most words of their own come first."""
    by_length = sorted(PHRASES, key=lambda code: -len(_NAME.sub("", PHRASES[code])))
    return {code: re.compile(_pattern(PHRASES[code]), re.S) for code in by_length}


def _pattern(template: str) -> str:
    parts = _NAME.split(template)
    return "".join(f"(?P<{part}>.*)" if at % 2 else re.escape(part) for at, part in enumerate(parts))
