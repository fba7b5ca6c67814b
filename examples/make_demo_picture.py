"""Make docs/images/demo.webp: the packaged sample next to what the dashboard shows of it.

Usage: python examples/make_demo_picture.py [OUT.webp [SCORES.jsonl]]
Scores the sample, hands the scores to the dashboard's real page as its websocket would, and
photographs it by Chromium once a second of the clip; the page's clock is the clip's, so that a
slow machine makes the same picture. Needs the extras ``dashboard`` and ``dev`` (playwright),
pillow and chromium.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import av
from make_sample_clip import SECONDS, SPEECH
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import WebSocketRoute, sync_playwright

from clients.dashboard.board import score_json
from clients.reading import RecordingFile
from engine.options import SAMPLES
from engine.wire.messages import Score

PERIOD_S, WIDTH_PX, QUALITY = 1.0, 900, 44
"""Of the picture: one photograph a second keeps it below 300 kB."""
START_MS = 1_764_230_400_000
"""What the page's clock shows at the clip's beginning."""
CARD_WIDTH, CARD_HEIGHT = 760, 430
FACE_WIDTH, FACE_HEIGHT = 300, 225
MARGIN = 16
GROUND, INK, MUTED = "#f4f6f8", "#17202a", "#566270"
SAID_S = 2.6
"""How long a line of speech stands; the next one replaces it."""


def scores() -> list[Score]:
    """Score the sample offline."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "scores.jsonl"
        command = [sys.executable, "-m", "engine.front", "score", "sample", "--out", str(out)]
        environment = {**os.environ, "UNDERTONE_WORDS__PUBLISH": "true"}
        subprocess.run(command, check=True, env=environment)
        return read(out)


def read(recorded: Path) -> list[Score]:
    """Read what ``undertone score sample`` wrote."""
    return [row.score for row in RecordingFile(recorded).rows()]


@contextlib.contextmanager
def dashboard() -> Iterator[str]:
    """The real page, of a dashboard without an engine; gives its address."""
    command = [sys.executable, "-m", "engine.front", "dashboard", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield next(line.split()[1] for line in process.stderr if "http://" in line)
        finally:
            process.terminate()


def news(found: Sequence[Score], seconds: float) -> str:
    """What the dashboard sends a browser: its state, and the scores that have come."""
    now_ms = START_MS + 1000 * seconds
    stream = {"name": "main", "silent_since_ms": None, "lost": 0}
    state = {
        "now_ms": now_ms, "engine": "live", "engine_since_ms": START_MS, "endpoint": "",
        "streams": [stream], "workers": [], "streams_refused": 0,
    }  # fmt: skip
    texts = [score_json(score, START_MS + score.envelope.t_end_ns / 1e6) for score in found]
    head = json.dumps({"kind": "news", "lost": 0, "state": state})[:-1]
    return f'{head}, "scores": [{", ".join(texts)}]}}'


def photographs(found: Sequence[Score]) -> Iterator[tuple[float, Image.Image]]:
    """Pairs of the clip's time in seconds and the card's picture then."""
    sockets: list[WebSocketRoute] = []
    with dashboard() as url, sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": CARD_WIDTH + 40, "height": CARD_HEIGHT + 300})
        page.set_default_timeout(120_000)
        page.clock.install(time=START_MS / 1000)
        page.route_web_socket("**/scores", lambda socket: sockets.append(socket))  # noqa: PLW0108 - it is marked
        page.goto(url)
        page.wait_for_function("document.querySelector('#streams')")
        while not sockets:
            page.wait_for_timeout(50)
        shown, seconds = 0, 0.0
        while seconds < SECONDS:
            seconds += PERIOD_S
            due = [s for s in found if s.envelope.t_end_ns <= seconds * 1e9]
            sockets[-1].send(news(due[shown:], seconds))
            if not shown and due:
                page.locator(".traces input").check()
                # Stages of an offline run say nothing of live latency.
                page.evaluate("document.querySelector('.costs').hidden = true")
            shown = len(due)
            page.clock.run_for(int(1000 * PERIOD_S))
            if not due:
                continue
            box = page.locator(".card").bounding_box()
            assert box is not None
            picture = Image.open(io.BytesIO(page.screenshot(clip=box, full_page=True)))
            yield seconds, picture.convert("RGB")
        browser.close()


def faces() -> list[Image.Image]:
    """Every picture of the sample."""
    with av.open(str(SAMPLES / "sample.mp4")) as clip:
        size = (FACE_WIDTH, FACE_HEIGHT)
        return [frame.to_image().resize(size) for frame in clip.decode(video=0)]


def said(seconds: float) -> str:
    """What is being said at a time of the clip."""
    lines = [
        (start + index * SAID_S * 0.8, sentence)
        for start, sentences in SPEECH
        for index, sentence in enumerate(sentences)
    ]
    spoken = [sentence for start, sentence in lines if start <= seconds < start + SAID_S]
    return f"“{spoken[-1]}”" if spoken else ""


def composed(seconds: float, card: Image.Image, face: Image.Image, tallest: int) -> Image.Image:
    """One picture: the clip and its words on the left, the dashboard's card on the right."""
    width = FACE_WIDTH + card.width + 3 * MARGIN
    height = max(tallest, FACE_HEIGHT + 120) + 2 * MARGIN
    picture = Image.new("RGB", (width, height), GROUND)
    picture.paste(face, (MARGIN, MARGIN))
    picture.paste(card, (FACE_WIDTH + 2 * MARGIN, MARGIN))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(17)
    words, line, y = said(seconds).split(), "", MARGIN + FACE_HEIGHT + 14
    for word in [*words, ""]:
        longer = f"{line} {word}".strip()
        if word and draw.textlength(longer, font) <= FACE_WIDTH:
            line = longer
            continue
        draw.text((MARGIN, y), line, INK, font)
        line, y = word, y + 23
    note = "synthesised voice, invented words"
    draw.text((MARGIN, height - MARGIN - 14), note, MUTED, ImageFont.load_default(13))
    return picture.resize((WIDTH_PX, round(height * WIDTH_PX / width)), Image.Resampling.LANCZOS)


def main(out: Path, recorded: Path | None) -> None:
    clip = faces()
    shots = list(photographs(scores() if recorded is None else read(recorded)))
    tallest, rate = max(card.height for _, card in shots), len(clip) / SECONDS
    pictures = [
        composed(seconds, card, clip[min(int(seconds * rate), len(clip) - 1)], tallest)
        for seconds, card in shots
    ]
    spans_ms = [round(1000 * (b - a)) for (a, _), (b, _) in pairwise(shots)] + [2000]
    pictures[0].save(
        out, save_all=True, append_images=pictures[1:], duration=spans_ms, loop=0,
        quality=QUALITY, method=4,
    )  # fmt: skip
    print(f"{out}: {len(pictures)} pictures, {out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    main(given[0] if given else Path("docs/images/demo.webp"), given[1] if given[1:] else None)
