"""What a browser asks for before it captures, read with every bound checked. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.settings import STREAM_NAME_PATTERN
from engine.wire.fields import WireError


class CaptureRefusedError(WireError):
    """A capture that may not begin or continue; one line for the person before the browser."""


@dataclass(frozen=True, slots=True)
class Hello:
    """A browser's greeting."""

    stream: str
    sound: bool
    pictures: bool
    consent: bool
    """The person in front of the camera has agreed in the page's dialog."""

    @staticmethod
    def read(values: object) -> Hello:
        """Read what came as JSON.

        Raises:
            CaptureRefusedError: a field is missing or of the wrong type, or there is no consent.
        """
        fields = values if isinstance(values, dict) else {}
        stream = fields.get("stream")
        wishes = [fields.get(name) for name in ("sound", "pictures", "consent")]
        if not isinstance(stream, str) or not all(isinstance(wish, bool) for wish in wishes):
            raise CaptureRefusedError("expected stream, sound, pictures and consent")
        if not re.fullmatch(STREAM_NAME_PATTERN, stream):
            raise CaptureRefusedError("a name has 1 to 64 letters, digits, dots, dashes or _")
        hello = Hello(stream, *(wish is True for wish in wishes))
        if not hello.consent:
            raise CaptureRefusedError("nothing is captured without consent")
        if not (hello.sound or hello.pictures):
            raise CaptureRefusedError("neither the camera nor the microphone was chosen")
        return hello
