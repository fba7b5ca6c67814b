"""A file's pictures are chosen before they are decoded, and are what they would have been."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

from engine.capture.clip import SAMPLE_CLIP
from engine.capture.plan import PicturePlan
from engine.capture.stamps import FrameSampler

ORDER = (0, 4, 2, 1, 3, 8, 6, 5, 7)
"""Pictures as a codec sends them: those that are built from others come after them."""


def time_ns(timed: Any) -> int:
    return int(Fraction(timed.pts) * timed.time_base * 10**9)


def packets(order: tuple[int, ...] = ORDER) -> list[SimpleNamespace]:
    """At 30 pictures a second; a packet's decoding time is two pictures before its place."""
    base = Fraction(1, 30)
    return [
        SimpleNamespace(pts=pts, dts=place - 2, size=1, is_discard=False, time_base=base)
        for place, pts in enumerate(order)
    ]


def picture(pts: int, interlaced: bool = False) -> SimpleNamespace:
    return SimpleNamespace(pts=pts, time_base=Fraction(1, 30), interlaced_frame=interlaced)


def decoded(path: Path, plan: PicturePlan | None) -> Iterator[Any]:
    """Every picture that comes out of the decoder."""
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.video[0]):
            for one, fully in [(packet, True)] if plan is None else plan.push(packet):
                one.stream.codec_context.skip_frame = "DEFAULT" if fully else "NONREF"
                yield from one.decode()


def same_pictures(path: Path) -> tuple[int, int]:
    """Pictures decoded with a plan and without; those that are looked at are the same."""
    sampler = FrameSampler(10.0)
    whole = list(decoded(path, None))
    expected = [(frame.pts, frame.to_ndarray()) for frame in whole if sampler.wants(time_ns(frame))]
    plan = PicturePlan(FrameSampler(10.0), time_ns)
    count, seen = 0, []
    for frame in decoded(path, plan):
        count += 1
        if plan.wants(frame):
            seen.append((frame.pts, frame.to_ndarray()))
    assert [pts for pts, _ in seen] == [pts for pts, _ in expected]
    assert all((a == b).all() for (_, a), (_, b) in zip(seen, expected, strict=True))
    return count, len(whole)


def test_the_sample_clips_pictures_are_the_same_with_and_without_a_plan() -> None:
    fewer, all_of_them = same_pictures(SAMPLE_CLIP)
    assert fewer < 0.8 * all_of_them


@pytest.mark.parametrize("name", ["vlog_05.mp4", "edge_face_noface.mov", "grid_00.mpg"])
def test_so_are_those_of_other_codecs(shared_data: Path, name: str) -> None:
    fewer, all_of_them = same_pictures(shared_data / "clips" / name)
    assert fewer <= all_of_them


def test_packets_come_out_in_their_order_with_every_third_picture_wanted() -> None:
    plan = PicturePlan(FrameSampler(10.0), time_ns)
    out = [ready for packet in packets() for ready in plan.push(packet)] + plan.rest()
    assert [packet.pts for packet, _ in out] == list(ORDER)
    assert [packet.pts for packet, fully in out if fully] == [0, 3, 6]
    assert [pts for pts in range(9) if plan.wants(picture(pts))] == [0, 3, 6]


def test_without_times_everything_is_decoded_and_chosen_afterwards() -> None:
    plan = PicturePlan(FrameSampler(10.0), time_ns)
    untimed = packets()
    for packet in untimed[3:]:
        packet.dts = None
    out = [ready for packet in untimed for ready in plan.push(packet)] + plan.rest()
    assert len(out) == 9
    assert all(fully for packet, fully in out if packet.dts is None)
    assert [pts for pts in range(9) if plan.wants(picture(pts))] == [0, 3, 6]


@pytest.mark.parametrize(("gone", "interlaced"), [(3, False), (None, True)])
def test_where_a_picture_fails_to_come_or_is_two_fields_all_are_decoded(
    gone: int | None, interlaced: bool
) -> None:
    plan = PicturePlan(FrameSampler(10.0), time_ns)
    for packet in packets():
        plan.push(packet)
    shown = [pts for pts in range(7) if pts != gone]
    looked_at = [pts for pts in shown if plan.wants(picture(pts, interlaced))]
    assert looked_at == [pts for pts in (0, 3, 6) if pts != gone]
    (later,) = packets((30,))
    assert all(fully for _, fully in plan.push(later))


def test_a_file_whose_times_lie_far_apart_is_not_held_back_for_ever() -> None:
    plan = PicturePlan(FrameSampler(10.0), time_ns)
    late = packets(tuple(range(200)))
    for packet in late:
        packet.dts -= 500
    out = [ready for packet in late for ready in plan.push(packet)]
    assert len(out) == 200
    assert [pts for pts in range(9) if plan.wants(picture(pts))] == [0, 3, 6]
