"""Faces: detections to tracks with stable identities, and the crops of those that are scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.capture.detections import SAME_FACE, Detection, FaceDetector, nearest, overlap
from engine.wire.messages import Box
from models.framing import Frame, cut

Picture = NDArray[np.uint8]

REMEMBERED_NS = 1_500_000_000
"""How long a face that is gone keeps its identity: a turned head, a hand, a passer-by."""
SOON = 3
"""Pictures between two searches while somebody is away who may be back."""
RETURN_DISTANCE = 1.5
"""How far from its last place a face may come back, in its own sides."""
RETURN_RATIO = 1.6
"""By how much its size may have changed meanwhile."""
SWITCH_RATIO = 1.3
"""How much more prominent another face has to be to be scored instead."""
STILL, MOVING = 0.015, 0.12
"""Change of place, size (in sides) or turn (radians) that is noise, and that is all motion."""
STILL_SHARE = 0.15
"""Share of a new place in the steadied one while a face is still; 1 while it moves."""


@dataclass(frozen=True, slots=True)
class Track:
    """One face over time."""

    track_id: int
    frame: Frame
    """Steadied."""
    score: float
    seen_ns: int
    """Capture time of the last picture that showed it."""
    missed: bool = False
    """The last picture did not show it."""
    still: bool = False
    """It has not moved: every second picture is enough to follow it."""


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """What one sampled picture shows: how many faces, and a scored one's crop."""

    faces: int
    crop: Picture | None = None
    box: Box | None = None
    track_id: int | None = None
    score: float | None = None


class FaceTracker:
    """Detections in, tracks out. Pure: the time is an argument."""

    def __init__(self) -> None:
        self.tracks: tuple[Track, ...] = ()
        self._next_id = 0
        self._scored: int | None = None

    @property
    def expects(self) -> bool:
        """Whether somebody is away who may be back in a moment."""
        return any(track.missed for track in self.tracks)

    @property
    def visible(self) -> tuple[Track, ...]:
        """The faces that the last picture showed."""
        return tuple(track for track in self.tracks if not track.missed)

    def scores(self, track: Track) -> bool:
        """Whether the track is the one that was chosen last."""
        return track.track_id == self._scored

    def follow(self, seen: dict[int, Detection | None], t_ns: int) -> None:
        """Take what became of visible tracks in the next picture, by identity.

        A visible track that is not named was not followed: it stays until the next search.
        """
        tracks: list[Track] = []
        for track in self.tracks:
            detection = seen.get(track.track_id)
            if track.track_id not in seen and not track.missed:
                tracks.append(track)
            elif detection is not None and not self._taken(tracks, detection):
                tracks.append(_continued(track, detection, t_ns))
            elif t_ns - track.seen_ns <= REMEMBERED_NS:
                tracks.append(replace(track, missed=True))
        self.tracks = tuple(tracks)

    def add(self, detections: Sequence[Detection], t_ns: int) -> None:
        """Take all faces found in a picture: those that are not known are back, or new.

        A face that was not followed is where it is found now, or it is gone.
        """
        stale = [track for track in self.visible if track.seen_ns < t_ns]
        if stale:
            self.follow({t.track_id: nearest(detections, t.frame) for t in stale}, t_ns)
        for detection in sorted(detections, key=lambda d: -d.score):
            if any(overlap(t.frame, detection.frame) >= SAME_FACE for t in self.visible):
                continue
            back = self._returned(detection)
            if back is None:
                found = Track(self._next_id, detection.frame, detection.score, t_ns)
                self._next_id += 1
                self.tracks = (*self.tracks, found)
            else:
                found = replace(
                    back, frame=detection.frame, score=detection.score, seen_ns=t_ns, missed=False
                )
                self.tracks = tuple(found if t is back else t for t in self.tracks)

    def choose(self, width: int, height: int) -> Track | None:
        """The largest and most central face of a picture; stays with one while it can.

        None while the one that is scored is away for a moment: another face takes its place
        only when it is forgotten.
        """
        best: Track | None = None
        best_value = 0.0
        for track in self.tracks:
            value = _prominence(track.frame, width, height)
            if track.track_id == self._scored:
                value *= SWITCH_RATIO
            elif track.missed:
                continue
            if best is None or value > best_value:
                best, best_value = track, value
        self._scored = None if best is None else best.track_id
        return None if best is None or best.missed else best

    def _returned(self, detection: Detection) -> Track | None:
        """The remembered face that this one may be: the nearest of about its size."""
        frame = detection.frame
        best: Track | None = None
        nearest = RETURN_DISTANCE
        for track in self.tracks:
            ratio = frame.side / track.frame.side
            away = math.hypot(frame.x - track.frame.x, frame.y - track.frame.y) / track.frame.side
            if track.missed and 1 / RETURN_RATIO <= ratio <= RETURN_RATIO and away <= nearest:
                best, nearest = track, away
        return best

    @staticmethod
    def _taken(tracks: Sequence[Track], detection: Detection) -> bool:
        """Whether two tracks have run into one face."""
        return any(not t.missed and overlap(t.frame, detection.frame) > 0.7 for t in tracks)


class FaceReader:
    """Pictures in, sightings out.

    Whole pictures are searched now and then; in between every known face is followed where it
    was, which costs a quarter, and says at once that a face is gone. A face that a search found
    counts when following finds it, too: one look in the picture, one in its own square.

    Args:
        detector: finds and follows.
        detect_every: pictures from one search to the next.
        crop_px: side of the crops.
        max_faces: faces followed and handed out at most; of more, the most prominent.
    """

    def __init__(
        self, detector: FaceDetector, detect_every: int, crop_px: int, max_faces: int = 1
    ) -> None:
        self._detector = detector
        self._detect_every = detect_every
        self._crop_px = crop_px
        self._max_faces = max_faces
        self._tracker = FaceTracker()
        self._since = detect_every
        self._handed: frozenset[int] = frozenset()
        self._looked_ns: int | None = None

    @property
    def known(self) -> frozenset[int]:
        """Identities of the faces that are seen, and of those away for a moment."""
        return frozenset(track.track_id for track in self._tracker.tracks)

    def read(self, picture: Picture, t_ns: int) -> Sighting:
        """The scored face of the next sampled BGR picture [H, W, 3], captured at ``t_ns``."""
        self._look(picture, t_ns)
        faces = len(self._tracker.visible)
        track = self._tracker.choose(picture.shape[1], picture.shape[0])
        return Sighting(faces) if track is None else self._sighting(picture, track, faces)

    def read_all(self, picture: Picture, t_ns: int) -> tuple[Sighting, ...]:
        """Every face of the next picture up to ``max_faces``, in the order of their coming.

        In a crowd, those that were handed out before stay as long as they are known.
        """
        self._look(picture, t_ns)
        visible = self._prominent(picture)
        self._handed &= self.known
        free = self._max_faces - len(self._handed)
        others = [t.track_id for t in visible if t.track_id not in self._handed]
        self._handed |= frozenset(others[:free])
        kept = sorted(
            (track for track in visible if track.track_id in self._handed),
            key=lambda track: track.track_id,
        )
        return tuple(self._sighting(picture, track, len(visible)) for track in kept)

    def _look(self, picture: Picture, t_ns: int) -> None:
        visible = self._prominent(picture)
        handed = [t for t in visible if t.track_id in self._handed or self._tracker.scores(t)]
        others = [track for track in visible if track not in handed]
        most = (handed + others)[: max(2, self._max_faces)]
        self._since += 1
        every = min(self._detect_every, SOON) if self._tracker.expects else self._detect_every
        due = self._since >= every
        # A still face rests for one picture after it was followed, but never in a search: what a
        # whole picture says of its place is coarser, and the crop would jump.
        known = [t for t in most if due or not (t.still and t.seen_ns == self._looked_ns)]
        self._looked_ns = t_ns
        seen = {t.track_id: self._detector.follow(picture, t.frame) for t in known}
        self._tracker.follow(seen, t_ns)
        lost = any(detection is None for detection in seen.values())
        if due or lost or not self._tracker.visible:
            self._tracker.add(self._found(picture, t_ns), t_ns)
            self._since = 0

    def _found(self, picture: Picture, t_ns: int) -> list[Detection]:
        """Known faces that were not followed in this picture, and those that a search adds.

        The known ones are followed now: of a crowd a search sees three at one time and twenty at
        the next, and its coarse sizes would make another one the most prominent each time.
        """
        searched = self._detector.detect(picture)
        found = []
        for track in self._tracker.visible:
            if track.seen_ns < t_ns:
                there = self._detector.follow(picture, track.frame)
                found.append(there or nearest(searched, track.frame))
        for detection in searched:
            if not any(
                overlap(t.frame, detection.frame) >= SAME_FACE for t in self._tracker.visible
            ):
                found.append(self._detector.follow(picture, detection.frame))
        return [detection for detection in found if detection is not None]

    def _prominent(self, picture: Picture) -> list[Track]:
        height, width = picture.shape[:2]
        return sorted(
            self._tracker.visible, key=lambda track: -_prominence(track.frame, width, height)
        )

    def _sighting(self, picture: Picture, track: Track, faces: int) -> Sighting:
        crop = cut(picture, track.frame, self._crop_px)
        if crop is None:
            return Sighting(faces)
        return Sighting(faces, crop, box_of(track.frame), track.track_id, min(1.0, track.score))


def box_of(frame: Frame) -> Box:
    """The upright box of a frame, in whole pixels."""
    side = max(1, round(frame.side))
    return Box(round(frame.x - side / 2), round(frame.y - side / 2), side, side)


def steadied(old: Frame, new: Frame) -> Frame:
    """Between the old frame and the new one: near the old one for noise, the new one for motion."""
    turned = math.remainder(new.turn - old.turn, math.tau)
    moving = min(1.0, max(0.0, (_change(old, new) - STILL) / (MOVING - STILL)))
    share = STILL_SHARE + (1 - STILL_SHARE) * moving
    return Frame(
        old.x + share * (new.x - old.x),
        old.y + share * (new.y - old.y),
        old.side + share * (new.side - old.side),
        math.remainder(old.turn + share * turned, math.tau),
    )


def _change(old: Frame, new: Frame) -> float:
    """How far a face has moved, grown or turned, in sides and radians: the most of them."""
    away = math.hypot(new.x - old.x, new.y - old.y) / old.side
    turned = abs(math.remainder(new.turn - old.turn, math.tau))
    return max(away, abs(new.side / old.side - 1), turned)


def _continued(track: Track, detection: Detection, t_ns: int) -> Track:
    frame = steadied(track.frame, detection.frame)
    return replace(
        track,
        frame=frame,
        score=detection.score,
        seen_ns=t_ns,
        missed=False,
        still=_change(track.frame, detection.frame) <= 2 * STILL,
    )


def _prominence(frame: Frame, width: int, height: int) -> float:
    """Area, up to halved towards the picture's corners."""
    across = abs(frame.x - width / 2) / (width / 2)
    along = abs(frame.y - height / 2) / (height / 2)
    return frame.side**2 * (1 - 0.25 * min(across, 1) - 0.25 * min(along, 1))
