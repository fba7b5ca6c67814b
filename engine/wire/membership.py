"""What captures, workers, relays and hosts say to the directory, and what it answers.

Every message is one msgpack map, told apart by its ``kind``; unknown fields are ignored, so that
fields may be added. What is read is not trusted: sizes are checked before decoding,
types and ranges while decoding. docs/scale.md says the same in words.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

from engine.wire.fields import WireError

MAX_BYTES = 512 * 1024
MAX_HELD = 4096

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}(/[0-9]{1,4})?$")]
Address = Annotated[str, msgspec.Meta(pattern=r"^(tcp|ipc)://", max_length=256)]
Line = Annotated[str, msgspec.Meta(max_length=1000)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Fresh = Annotated[int, msgspec.Meta(ge=-1, le=2**62)]
"""A time or number that is -1 while there is none yet."""


class _Message(msgspec.Struct, frozen=True, tag_field="kind", omit_defaults=True):
    """One map on the wire."""


class Held(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A stream that a worker holds: [epoch, end of the newest scored window, number of its score].

    The last two are -1 before the first score.
    """

    epoch: Count
    t_end_ns: Fresh = -1
    seq: Fresh = -1


class Beat(_Message, frozen=True, tag="beat"):
    """A worker's report to the directory, four times a second and when its streams change."""

    worker: Name
    host: Name
    pid: Count
    incarnation: Count
    """Of this process: another one under the same name has another."""
    ingest: Address
    control: Address
    schema: Count
    model: Line
    """sha256 of the bundle."""
    generation: Count
    """Which rolling upgrade it was started by; new streams go to the highest."""
    capacity: Count
    """Streams it is meant to hold."""
    hop_ms: Count
    p99_ms: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    """Of the latency of the last seconds' scores; 0 without any."""
    ready: bool = True
    draining: bool = False
    """It was told to ``Drain``: a directory that has just started learns it so."""
    streams: Annotated[dict[str, Held], msgspec.Meta(max_length=MAX_HELD)] = {}


class RelayBeat(_Message, frozen=True, tag="relay"):
    """A relay's report: where workers send scores to, and where clients subscribe."""

    relay: Name
    pid: Count
    intake: Address
    scores: Address


class HostBeat(_Message, frozen=True, tag="host"):
    """A host's report: its own process, and the newest bundle that its workers run."""

    host: Name
    pid: Count
    bundle: Line = ""
    """Path or name; a host that joins later gets it, too. Older versions send none."""
    generation: Count = 1


class Place(_Message, frozen=True, tag="place"):
    """A capture asks where its stream's messages are to go."""

    stream: Name
    device: Name
    owner: Line
    """Same for a capture and its successor after a restart; another's differs."""
    epoch: Count = 0
    """Of the placement that it had last; 0 without one."""
    lost: str = ""
    """Name of the worker that it has just lost."""


class Claim(_Message, frozen=True, tag="claim"):
    """A capture says, once a second, that it is still there and where it sends to."""

    stream: Name
    device: Name
    owner: Line
    epoch: Count
    worker: Name


class Leave(_Message, frozen=True, tag="leave"):
    """A capture has come to its end."""

    stream: Name
    device: Name
    owner: Line


class Admitted(_Message, frozen=True, tag="admitted"):
    """A worker lets a client's key in for a stream."""

    stream: Name
    epoch: Count


class Ask(_Message, frozen=True, tag="ask"):
    """An operator's request: ``status``, ``drain`` of a worker, ``upgrade`` to a bundle."""

    command: Line
    worker: Line = ""
    bundle: Line = ""


class Placed(_Message, frozen=True, tag="placed"):
    """Where a stream's messages are to go from now on."""

    stream: Name
    worker: Name
    ingest: Address
    control: Address
    epoch: Count
    hop_ms: Count
    t_end_ns: Fresh = -1
    """End of the newest window that is known to be scored; -1 where none is."""
    seq: Fresh = -1
    """Number of that window's score."""


class Refused(_Message, frozen=True, tag="refused"):
    """Not now; ask again after ``retry_ms``."""

    stream: Name
    reason: Line
    retry_ms: Count


class Release(_Message, frozen=True, tag="release"):
    """To a worker: stop at once with a stream that it holds under ``epoch`` or an older one."""

    stream: Name
    epoch: Count


class Admit(_Message, frozen=True, tag="admit"):
    """To a worker: let in the client's key for this stream."""

    stream: Name
    epoch: Count
    key: Line


class Drain(_Message, frozen=True, tag="drain"):
    """To a worker: say in every beat that its streams are to move away."""


class Relays(_Message, frozen=True, tag="relays"):
    """To a worker: the relays' intakes, all of them."""

    intakes: Annotated[tuple[Address, ...], msgspec.Meta(max_length=64)]


class Upgrade(_Message, frozen=True, tag="upgrade"):
    """To a host: start workers with this bundle."""

    bundle: Line
    generation: Count


class Retire(_Message, frozen=True, tag="retire"):
    """To a host: this worker holds no stream any more; end it."""

    worker: Name


class Rejected(_Message, frozen=True, tag="rejected"):
    """To the sender of something that the directory does not take."""

    reason: Line


class Report(_Message, frozen=True, tag="report"):
    """The answer to an operator."""

    values: dict[str, Any]


Inbound = (
    Beat | RelayBeat | HostBeat | Place | Claim | Leave | Admitted | Ask
)  # what the directory reads
Outbound = (
    Placed | Refused | Release | Admit | Drain | Relays | Upgrade | Retire | Rejected | Report
)

_Read = TypeVar("_Read", Inbound, Outbound)
_inbound: msgspec.msgpack.Decoder[Inbound] = msgspec.msgpack.Decoder(Inbound)
_outbound: msgspec.msgpack.Decoder[Outbound] = msgspec.msgpack.Decoder(Outbound)
_encoder = msgspec.msgpack.Encoder()


def pack(message: Inbound | Outbound) -> bytes:
    """Encode a message."""
    return _encoder.encode(message)


def unpack_inbound(frame: bytes) -> Inbound:
    """Decode what came to the directory.

    Raises:
        WireError: too long, not msgpack, or not one of its messages; names the field.
    """
    return _checked(_inbound, frame)


def unpack_outbound(frame: bytes) -> Outbound:
    """Decode what came from the directory.

    Raises:
        WireError: as ``unpack_inbound``.
    """
    return _checked(_outbound, frame)


def _checked(decoder: msgspec.msgpack.Decoder[_Read], frame: bytes) -> _Read:
    if len(frame) > MAX_BYTES:
        raise WireError(f"membership: expected at most {MAX_BYTES} bytes, got {len(frame)}")
    try:
        return decoder.decode(frame)
    except (msgspec.DecodeError, RecursionError) as error:
        raise WireError(f"membership: {error}") from None
