"""Clips: a media file's sound and picture as the messages of a live stream.

What is sent depends on the file's own times only, so that a clip scored offline and one played
live are the same messages.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.capture import CaptureError
from engine.capture.people import People
from engine.capture.pictures import square_size
from engine.capture.plan import PicturePlan
from engine.capture.stamps import (
    NS_PER_S,
    REANCHOR_NS,
    Chunker,
    FrameSampler,
    Stamper,
    to_int16,
)
from engine.settings import EngineSettings
from engine.wire.clock import this_clock
from engine.wire.messages import SAMPLE_RATE_HZ, Audio, Video
from models.preprocessing import Resampler

log = logging.getLogger(__name__)

SAMPLE_CLIP = Path(__file__).parents[1] / "samples" / "sample.mp4"
VOICE_OVER_MS = 500
"""Silence in which a voice is heard to have ended: the detector's hang-over, and a pause."""
MAX_LEAD = 512
"""Messages of one stream held back for the other one: clips are interleaved, but not strictly."""


def resolve_clip(source: str) -> Path:
    """Path of a clip; ``sample`` is the packaged one.

    Raises:
        CaptureError: no such file.
    """
    path = SAMPLE_CLIP if source == "sample" else Path(source).expanduser()
    if not path.is_file():
        raise CaptureError(f"no clip at {path}")
    return path


def read_clip(
    path: Path,
    settings: EngineSettings,
    stamper: Stamper | None = None,
    start_ns: int = 0,
    silence: bool = True,
) -> Iterator[Audio | Video]:
    """Yield a clip's messages in the order of their end.

    Args:
        path: any file that FFmpeg reads.
        settings: chunks, speech, faces.
        stamper: numbers the messages; by default stream ``main`` from 0.
        start_ns: time of the clip's beginning.
        silence: whether silence follows where a clip ends while somebody speaks, until what was
            said last counts: a clip of one sentence is scored with its words, as that sentence is
            from a microphone.

    Raises:
        CaptureError: missing, not a media file, neither sound nor picture in it, or one picture.
    """
    pair = _Pair(path, settings, stamper or Stamper("main", this_clock()), start_ns)
    yield from pair.messages(silence)


def read_sound(path: Path) -> NDArray[np.int16]:
    """The sound of a file [N] at 16 kHz, mono: what ``read_clip`` sends, at once.

    Sample n is at n / 16000 s of the file: where its sound begins late or pauses, there is
    silence. A stream ends with the last whole frame of its speech detector; here nothing is cut
    off.

    Raises:
        CaptureError: not a media file, or no sound in it.
    """
    import av

    av.logging.set_level(None)
    if not path.is_file():
        raise CaptureError(f"no clip at {path}")
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise CaptureError(f"{path}: no sound in it")
            begin_s = (container.start_time or 0) / av.time_base
            frames = list(container.decode(container.streams.audio[0]))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise CaptureError(f"{path}: not a media file ({_reason(error)})") from None
    if not frames:
        raise CaptureError(f"{path}: no sound in it could be decoded")
    resampler = Resampler(frames[0].sample_rate, SAMPLE_RATE_HZ)
    samples = np.concatenate(list(_without_holes(frames, begin_s)))
    return to_int16(np.concatenate((resampler.push(samples), resampler.flush())))


def _without_holes(frames: list[Any], begin_s: float) -> Iterator[NDArray[np.float32]]:
    """Samples of the frames, and zeros wherever one of them comes later than it should."""
    count = 0
    for frame in frames:
        if frame.time is not None:
            missing_s = frame.time - begin_s - count / frame.sample_rate
            if missing_s * NS_PER_S > REANCHOR_NS:
                missing = round(missing_s * frame.sample_rate)
                count += missing
                yield np.zeros(missing, np.float32)
        samples = _mono(frame)
        count += len(samples)
        yield samples


class _Pair:
    """Sound and picture of one file, decoded once and merged by time."""

    def __init__(
        self, path: Path, settings: EngineSettings, stamper: Stamper, start_ns: int
    ) -> None:
        self._path = path
        self._start_ns = start_ns
        self._begin_ns = 0
        self._chunker = Chunker(settings, stamper)
        sampler = FrameSampler(settings.capture.video_rate_hz)
        self._plan = PicturePlan(sampler, self._time_ns)
        self._people = People(stamper, settings, sampler.period_ns)
        self._resampler: Resampler | None = None
        self._rate_hz = 0
        # A codec's frames are shorter than a chunk; one pass over several costs what one does.
        self._chunk_s = settings.capture.chunk_ms / 1000
        self._heard: list[NDArray[np.float32]] = []
        self._heard_count = 0
        # Words count with a delay, in the windows that end after it.
        tail_ms = VOICE_OVER_MS + settings.words.delay_ms + settings.inference.hop_ms
        self._tail_ns = tail_ms * NS_PER_S // 1000
        self._sound_ns = 0
        self._voiced_ns: int | None = None
        self._aspect = Fraction(1)
        self._broken = 0

    def messages(self, silence: bool) -> Iterator[Audio | Video]:
        import av

        av.logging.set_level(None)
        if not self._path.is_file():
            raise CaptureError(f"no clip at {self._path}")
        try:
            container = av.open(str(self._path))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise CaptureError(f"{self._path}: not a media file ({_reason(error)})") from None
        with container:
            shown = _films(container)[:1]
            chosen = [*container.streams.audio[:1], *shown]
            if not chosen:
                raise CaptureError(f"{self._path}: neither sound nor picture in it")
            # A recorded broadcast's clock began hours ago; the clip begins with its first packet.
            self._begin_ns = max(0, container.start_time or 0) * (NS_PER_S // av.time_base)
            for stream in shown:
                self._aspect = stream.sample_aspect_ratio or Fraction(1)
                stream.codec_context.thread_count = 1  # a clip needs none, and waking them costs
            queues: dict[str, deque[Audio | Video]] = {s.type: deque() for s in chosen}
            sent, end_ns = 0, self._start_ns
            for kind, found in self._decode(container, chosen):
                queues[kind] += found
                for message in _merge(queues, all_in=False):
                    sent, end_ns = sent + 1, message.envelope.t_end_ns
                    yield message
            queues.setdefault("audio", deque()).extend(self._end_of_sound())
            if silence:
                queues["audio"].extend(self._silence())
            queues.setdefault("video", deque()).extend(self._people.end())
            for message in _merge(queues, all_in=True):
                sent, end_ns = sent + 1, message.envelope.t_end_ns
                yield message
        if sent == 0:
            raise CaptureError(f"{self._path}: nothing in it could be decoded")
        if end_ns == self._start_ns:
            raise CaptureError(f"{self._path}: expected a clip that lasts, got a single picture")
        if self._broken:
            log.warning("clip: %d damaged packets were skipped", self._broken)

    def _decode(
        self, container: Any, chosen: list[Any]
    ) -> Iterator[tuple[str, list[Audio | Video]]]:
        import av

        skips = False
        for packet, fully in self._planned(container, chosen):
            is_sound = packet.stream.type == "audio"
            if not is_sound and skips == fully:
                skips = not fully
                packet.stream.codec_context.skip_frame = "NONREF" if skips else "DEFAULT"
            try:
                frames = packet.decode()
            except av.error.EOFError:
                return
            except (av.error.FFmpegError, ValueError):
                self._broken += 1
                if self._broken > MAX_LEAD:
                    return
                continue
            for frame in frames:
                if frame.pts is None:
                    self._broken += 1
                elif is_sound:
                    yield "audio", [*self._sound(frame)]
                else:
                    yield "video", self._picture(frame)

    def _planned(self, container: Any, chosen: list[Any]) -> Iterator[tuple[Any, bool]]:
        """Packets, and whether all of them is to be decoded, or only what others are built from."""
        import av

        packets = container.demux(*chosen)
        while self._broken <= MAX_LEAD:
            try:
                packet = next(packets)
            except (StopIteration, av.error.EOFError):
                break
            except (av.error.FFmpegError, ValueError):
                self._broken += 1
                continue
            if packet.stream.type == "video":
                yield from self._plan.push(packet)
            else:
                yield packet, True
        yield from self._plan.rest()

    def _sound(self, frame: Any) -> list[Audio]:
        """Take a frame; it is passed on with those before it once they make a chunk together."""
        samples = _mono(frame)
        t_ns = self._time_ns(frame)
        done: list[Audio] = []
        if self._resampler is None or self._rate_hz != frame.sample_rate:
            done += self._gathered()
            self._rate_hz = frame.sample_rate
            self._resampler = Resampler(self._rate_hz, SAMPLE_RATE_HZ)
            self._heard_ns = t_ns
            self._chunker.anchor(t_ns)
        if abs(t_ns - self._heard_ns) > REANCHOR_NS:
            done += self._end_of_sound()
            lost = max(0, t_ns - self._heard_ns) * SAMPLE_RATE_HZ // NS_PER_S
            t_ns = max(t_ns, self._heard_ns)
            self._chunker.anchor(t_ns, lost)
            self._heard_ns = t_ns
        self._heard_ns += len(samples) * NS_PER_S // self._rate_hz
        self._heard.append(samples)
        self._heard_count += len(samples)
        if self._heard_count >= self._chunk_s * self._rate_hz:
            done += self._gathered()
        return done

    def _gathered(self) -> list[Audio]:
        """The chunks that are complete with the frames that waited for each other."""
        if self._resampler is None or not self._heard:
            return []
        samples = self._heard[0] if len(self._heard) == 1 else np.concatenate(self._heard)
        self._heard, self._heard_count = [], 0
        return self._noted(self._chunker.push(to_int16(self._resampler.push(samples))))

    def _end_of_sound(self) -> list[Audio]:
        if self._resampler is None:
            return []
        done = self._gathered()
        rest = self._chunker.push(to_int16(self._resampler.flush()))
        return done + self._noted(rest + self._chunker.flush())

    def _noted(self, chunks: list[Audio]) -> list[Audio]:
        for chunk in chunks:
            self._sound_ns = chunk.envelope.t_end_ns
            if any(chunk.speech):
                self._voiced_ns = self._sound_ns
        return chunks

    def _silence(self) -> list[Audio]:
        """What follows the sound, as far as the last words need it."""
        if self._voiced_ns is None:
            return []
        missing_ns = self._voiced_ns + self._tail_ns - self._sound_ns
        silence = np.zeros(max(0, missing_ns) * SAMPLE_RATE_HZ // NS_PER_S, np.int16)
        return self._chunker.push(silence) + self._chunker.flush()

    def _picture(self, frame: Any) -> list[Audio | Video]:
        t_ns = self._time_ns(frame)
        if not self._plan.wants(frame):
            return []
        size = square_size(frame.width, frame.height, self._aspect)
        shown = frame.to_ndarray(format="bgr24", width=size[0], height=size[1])
        picture = np.rot90(shown, getattr(frame, "rotation", 0) // 90)
        return [*self._people.look(np.ascontiguousarray(picture), t_ns)]

    def _time_ns(self, frame: Any) -> int:
        """Of a picture, sound or packet."""
        base = frame.time_base
        time_ns = frame.pts * base.numerator * NS_PER_S // base.denominator
        return self._start_ns + max(0, int(time_ns) - self._begin_ns)


def _films(container: Any) -> list[Any]:
    """Streams of pictures that move: the cover of a song is none."""
    from av.stream import Disposition

    covers = Disposition.attached_pic | Disposition.still_image
    return [stream for stream in container.streams.video if not stream.disposition & covers]


def _merge(queues: dict[str, deque[Audio | Video]], all_in: bool) -> Iterator[Audio | Video]:
    """Take messages off the queues in the order of their end, as far as that is known yet."""
    while True:
        filled = [queue for queue in queues.values() if queue]
        waits = len(filled) < len(queues) and max(map(len, queues.values())) < MAX_LEAD
        if not filled or (waits and not all_in):
            return
        first = min(filled, key=lambda queue: queue[0].envelope.t_end_ns)
        yield first.popleft()


def _mono(frame: Any) -> NDArray[np.float32]:
    """Samples [N] of a decoded frame: channels averaged, integers scaled to [-1, 1)."""
    values = frame.to_ndarray()
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        values = values.reshape(-1, channels).T
    mean: NDArray[np.floating]
    if channels == 1:
        mean = values[0]
    elif channels == 2 and values.dtype == np.float32:
        mean = (values[0] + values[1]) * np.float32(0.5)  # the same numbers, in a third of the time
    else:
        mean = values.mean(axis=0, dtype=np.float64)
    if values.dtype == np.uint8:
        mean = (mean - 128.0) / 128.0
    elif np.issubdtype(values.dtype, np.integer):
        mean = mean / float(-np.iinfo(values.dtype).min)
    if not np.isfinite(mean).all():
        mean = np.nan_to_num(mean, posinf=1.0, neginf=-1.0)
    return np.asarray(mean, np.float32)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text).splitlines()[0][:120] if text else type(error).__name__
