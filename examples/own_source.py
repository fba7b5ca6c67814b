"""Your own source: push sound and face crops to a running worker (undertone infer).

Here a clip plays the part of your device, its middle the part of your face detector.

Usage: python examples/own_source.py CLIP [INGEST [STREAM]]
"""

import sys
import time

import av
import cv2
import numpy as np

from engine.wire.clock import now_ns, this_clock
from engine.wire.ingest import IngestSender
from engine.wire.messages import Audio, Envelope, Video

CHUNK, RATE_HZ, FRAME_MS = 800, 16_000, 10  # 50 ms of sound, speech flags every 10 ms
clip = sys.argv[1]
ingest = sys.argv[2] if len(sys.argv) > 2 else "tcp://127.0.0.1:5570"
stream = sys.argv[3] if len(sys.argv) > 3 else "mine"

with av.open(clip) as opened:
    resampler = av.AudioResampler("s16", "mono", RATE_HZ)
    sound = np.concatenate(
        [new.to_ndarray()[0] for old in opened.decode(audio=0) for new in resampler.resample(old)]
    )
with av.open(clip) as opened:
    pictures = [(frame.time, frame.to_ndarray(format="bgr24")) for frame in opened.decode(video=0)]


def loud(chunk: np.ndarray) -> tuple[bool, ...]:
    """Speech flags; a real source has a voice activity detector."""
    frames = chunk.reshape(-1, RATE_HZ * FRAME_MS // 1000).astype(float)
    return tuple(bool(flag) for flag in np.sqrt((frames**2).mean(axis=1)) > 100)


with IngestSender(ingest) as sender:
    start_ns, clock, shown = now_ns(), this_clock(), 0
    for number in range(len(sound) // CHUNK):
        chunk = sound[number * CHUNK : (number + 1) * CHUNK]
        begin_ns = start_ns + number * 50_000_000
        end_ns = begin_ns + 50_000_000
        time.sleep(max(0, end_ns - now_ns()) / 1e9)  # a device delivers when a chunk is full
        # Times are of the monotonic clock; seq rises by one per stream and kind.
        envelope = Envelope(stream, number, begin_ns, end_ns, now_ns(), clock)
        level = 20 * np.log10(max(np.sqrt((chunk.astype(float) ** 2).mean()), 0.04) / 32768)
        sender.send(Audio(envelope, chunk, loud(chunk), FRAME_MS, float(level)))
        if number % 2 == 0:  # 10 pictures a second
            _, picture = min(pictures, key=lambda entry: abs(entry[0] - number * 0.05))
            height, width, _ = picture.shape
            left = (width - height) // 2
            crop = cv2.resize(picture[:, left : left + height], (112, 112))
            envelope = Envelope(stream, shown, end_ns, end_ns, now_ns(), clock)
            sender.send(Video(envelope, faces=1, crop=crop, track_id=0))
            shown += 1
    print(f"{sender.sent} messages sent, {sender.dropped} dropped")
