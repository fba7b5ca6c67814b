"""The dashboard in a real browser: Chromium, headless, with a camera and microphone from files."""

from __future__ import annotations

import shutil
import subprocess
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright
from scipy.signal import fftconvolve, resample_poly

from engine.wire import jpeg
from engine.wire.clock import MAX_SLEW
from engine.wire.ingest import IngestReceiver
from engine.wire.messages import Audio, Score, Video
from engine.wire.scores import ScoreReceiver
from tests.support.dashboards import dashboard, engine, free_endpoint, stage

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 30_000
SAMPLE = Path(__file__).parents[3] / "engine" / "samples" / "sample.mp4"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def play() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


def launch(play: Playwright, *flags: str) -> Iterator[Browser]:
    browser = play.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
    try:
        yield browser
    finally:
        browser.close()


@pytest.fixture(scope="module")
def browser(play: Playwright) -> Iterator[Browser]:
    yield from launch(play)


@pytest.fixture
def faults() -> Iterator[list[str]]:
    """What pages complained of; a test ends with none."""
    found: list[str] = []
    yield found
    assert found == []


def opened(browser: Browser, url: str, faults: list[str], **options: object) -> Page:
    page = browser.new_context(**options).new_page()  # type: ignore[arg-type]
    page.set_default_timeout(PATIENCE_MS)
    page.on("pageerror", lambda error: faults.append(str(error)))

    def said(message: object) -> None:
        # A dashboard that is away on purpose is complained of by the browser itself.
        text = getattr(message, "text", "")
        if getattr(message, "type", "") == "error" and "net::ERR_" not in text:
            faults.append(text)

    page.on("console", said)
    page.goto(url)
    return page


def await_true(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.1)


def row(page: Page, stream: str) -> list[str]:
    """The table's cells of a stream."""
    cells: list[str] = page.evaluate(
        """stream => [...document.querySelectorAll('#table tr')]
            .map(row => [...row.cells].map(cell => cell.textContent))
            .find(cells => cells[0] === stream) ?? []""",
        stream,
    )
    return cells


def number(text: str) -> float:
    return float(text.replace("−", "-").replace("+", ""))


CANVAS = 'document.querySelector(`[data-stream="${stream}"] canvas`)'


def drawn(page: Page, stream: str) -> str:
    """The chart as an image in text."""
    image: str = page.evaluate(f"stream => {CANVAS}.toDataURL()", stream)
    return image


def colours(page: Page, stream: str, left: int, top: int, width: int, height: int) -> int:
    """How many colours a part of the chart has."""
    count: int = page.evaluate(
        f"""([stream, ...box]) => {{
            const pixels = {CANVAS}.getContext('2d').getImageData(...box).data;
            return new Set(new Uint32Array(pixels.buffer)).size;
        }}""",
        [stream, left, top, width, height],
    )
    return count


def test_the_chart_moves_and_the_numbers_are_those_on_the_wire(
    browser: Browser, faults: list[str]
) -> None:
    endpoint = free_endpoint()
    with dashboard(endpoint) as dash, stage(endpoint, "ann,mute", 5, past_s=30) as actors:
        page = opened(browser, dash.url, faults)
        page.wait_for_selector('[data-stream="ann"] .value')
        page.click("#table-details summary")
        await_true(lambda: len(row(page, "mute")) == 14)
        for _ in range(3):
            cells = row(page, "ann")
            published = actors.scores()["ann", int(cells[13])]
            if published is None:
                assert cells[2] == "no_voice_and_no_face"
            else:
                assert number(cells[2]) == pytest.approx(published, abs=5.1e-4)
            time.sleep(1.1)
        assert row(page, "ann")[13] != cells[13]
        assert row(page, "mute")[2] == "no_voice_and_no_face"
        mute = page.locator('[data-stream="mute"]')
        assert mute.locator(".value").inner_text() == "No value"
        assert mute.locator(".why").inner_text() == "no voice and no face"
        assert mute.locator(".weight.absent").count() == 3
        assert page.locator(".untrained:visible").count() == 0
        before = drawn(page, "ann")
        await_true(lambda: drawn(page, "ann") != before)
        # A mark reaches the timeline, and the arrow keys read single scores.
        actors.mark("question 1")
        page.focus('[data-stream="ann"] canvas')
        page.keyboard.press("ArrowLeft")
        cursor = page.locator('[data-stream="ann"] .cursor')
        first = cursor.inner_text()
        page.keyboard.press("Shift+ArrowLeft")
        assert cursor.inner_text() != first
        page.keyboard.press("Escape")
        assert cursor.is_hidden()


def test_an_hour_of_history_is_there_on_opening(browser: Browser, faults: list[str]) -> None:
    endpoint = free_endpoint()
    with dashboard(endpoint) as dash, stage(endpoint, "ann", 2, past_s=3500) as actors:
        await_true(lambda: len(actors.printed.lines) > 2)
        page = opened(browser, dash.url, faults)
        page.wait_for_selector('[data-stream="ann"] canvas')
        page.click("text=1 h")
        page.focus('[data-stream="ann"] canvas')

        def oldest_s() -> int:
            """How long ago the first score is that the chart shows."""
            page.keyboard.press("Home")
            clock = page.locator('[data-stream="ann"] .cursor').inner_text().split()[0]
            seen, now = time.strptime(clock, "%H:%M:%S"), time.localtime()
            minutes = (now.tm_hour - seen.tm_hour) * 60 + now.tm_min - seen.tm_min
            return minutes * 60 % 86_400

        await_true(lambda: oldest_s() > 3000)
        # The line and the band begin near the left edge.
        await_true(lambda: colours(page, "ann", 60, 40, 200, 120) > 20)


def test_a_killed_engine_shows_as_such_and_comes_back(browser: Browser, faults: list[str]) -> None:
    scores, ingest = free_endpoint(), free_endpoint()
    arguments = ("--source", str(SAMPLE))
    with dashboard(scores) as dash:
        page = opened(browser, dash.url, faults)
        page.wait_for_selector("text=Waiting for an engine")
        with engine(scores, ingest, *arguments) as first:
            page.wait_for_selector("[data-stream=main] .value")
            page.wait_for_selector("#link[data-state=live]")
            # The packaged bundle says of itself whether it was trained; the page says the same.
            with ScoreReceiver(scores, status=False) as receiver:
                message = receiver.receive(20_000)
            assert isinstance(message, Score)
            shown = page.locator("[data-stream=main] .untrained").is_visible()
            assert shown is not message.model.trained
            family = [first.pid, *(c.pid for c in psutil.Process(first.pid).children(True))]
            for pid in family:
                psutil.Process(pid).kill()
        alert = page.wait_for_selector("#alert-engine")
        assert "Engine gone since" in alert.inner_text()
        assert page.inner_text("#link-text") == "Engine gone"
        assert page.locator("[data-stream=main].old").count() == 1
        with engine(scores, ingest, *arguments):
            page.wait_for_selector("#link[data-state=live]")
            page.wait_for_selector("#alert-engine", state="detached")
            page.wait_for_selector("[data-stream=main]:not(.old)")


def test_a_dashboard_that_is_restarted_is_found_again(browser: Browser, faults: list[str]) -> None:
    endpoint = free_endpoint()
    with stage(endpoint, "ann"):
        with dashboard(endpoint) as dash:
            page = opened(browser, dash.url, faults)
            page.wait_for_selector("#link[data-state=live]")
            port = str(dash.address[1])
        page.wait_for_selector("#alert-link")
        with dashboard(endpoint, "--port", port):
            page.wait_for_selector("#link[data-state=live]")
            page.wait_for_selector("#alert-link", state="detached")


def test_what_each_modality_says_is_drawn_on_demand(browser: Browser, faults: list[str]) -> None:
    endpoint = free_endpoint()
    with dashboard(endpoint) as dash, stage(endpoint, "ann", past_s=40):
        page = opened(browser, dash.url, faults)
        card = page.locator("[data-stream=ann]")
        card.locator(".weight.text .alone", has_text="says").wait_for()
        await_true(lambda: colours(page, "ann", 300, 20, 200, 150) > 1)
        inks = ["--voice", "--words", "--face"]

        def drawn_inks() -> list[bool]:
            """Whether the chart has the colour of each modality above its lanes."""
            found: list[bool] = page.evaluate(
                """inks => {
                    const canvas = document.querySelector('[data-stream=ann] canvas');
                    const {width, height} = canvas;
                    const above = height - 60 * devicePixelRatio;
                    const pixels = canvas.getContext('2d').getImageData(0, 0, width, above).data;
                    const style = getComputedStyle(canvas);
                    return inks.map(ink => {
                        const [r, g, b] = style.getPropertyValue(ink).trim().slice(1)
                            .match(/../g).map(part => parseInt(part, 16));
                        for (let i = 0; i < pixels.length; i += 4)
                            if (Math.abs(pixels[i] - r) + Math.abs(pixels[i + 1] - g)
                                + Math.abs(pixels[i + 2] - b) < 12) return true;
                        return false;
                    });
                }""",
                inks,
            )
            return found

        assert drawn_inks() == [False] * 3
        card.locator(".traces input").check()
        await_true(lambda: drawn_inks() == [True] * 3)


@pytest.mark.slow
def test_a_mark_a_pause_and_going_on_from_the_page_reach_the_engine(
    browser: Browser, faults: list[str]
) -> None:
    scores, ingest, control = free_endpoint(), free_endpoint(), free_endpoint()
    with (
        engine(scores, ingest, "run", "--source", "sample", control=control),
        dashboard(scores, "--control", control) as dash,
        ScoreReceiver(scores) as published,
    ):
        page = opened(browser, dash.url, faults)
        page.locator("[data-stream=main]").wait_for()
        page.fill("#mark-label", "question 3")
        page.press("#mark-label", "Enter")
        page.locator("#command-said", has_text="Marked: question 3").wait_for()

        def marks() -> list[str | None]:
            return [s.mark for s in published.receive_all() if isinstance(s, Score)]

        await_true(lambda: "question 3" in marks())
        page.click("#pause")
        page.locator("#link-text", has_text="Engine paused").wait_for()
        page.locator("#pause", has_text="Resume").click()
        page.locator("#link-text", has_text="Live").wait_for()


def test_the_page_fits_a_phone_and_can_be_read_without_seeing(
    browser: Browser, faults: list[str]
) -> None:
    endpoint = free_endpoint()
    with dashboard(endpoint) as dash, stage(endpoint, "ann,bob,a-rather-long-name-of-a-stream"):
        phone = {"width": 360, "height": 740}
        page = opened(browser, dash.url, faults, viewport=phone, color_scheme="dark")
        page.wait_for_selector('[data-stream="bob"] .value')
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.click("#theme")
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert dark != light
        page.reload()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == light
        tree = page.locator("body").aria_snapshot()
        for part in ("banner", "main", "contentinfo", "complementary", "status", 'heading "bob"'):
            assert part in tree, part
        assert page.locator(".notice").is_visible()
        page.click(".notice a")
        page.wait_for_selector("text=5(1)(f)")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with camera.mjpeg and microphone.wav, made of the packaged clip."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    folder = tmp_path_factory.mktemp("devices")
    fit = "scale=640:480:force_original_aspect_ratio=increase,crop=640:480,fps=20"
    for arguments in (
        ("-vf", fit, "-q:v", "4", "-an", "camera.mjpeg"),
        ("-ac", "1", "-ar", "48000", "microphone.wav"),
    ):
        command = ["ffmpeg", "-y", "-loglevel", "error", "-i", str(SAMPLE), *arguments]
        subprocess.run(command, cwd=folder, check=True, timeout=50)
    return folder


@pytest.fixture
def equipped(play: Playwright, recording: Path) -> Iterator[Browser]:
    """A browser with a camera and a microphone."""
    yield from launch(
        play,
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={recording / 'camera.mjpeg'}",
        f"--use-file-for-fake-audio-capture={recording / 'microphone.wav'}",
    )


def likeness(heard: np.ndarray, played: Path) -> float:
    """Largest normalised correlation of 16 kHz samples with any place of a looped 48 kHz file."""
    with wave.open(str(played)) as file:
        whole = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    looped = resample_poly(np.concatenate((whole, whole)).astype(np.float64), 1, 3)
    part = heard.astype(np.float64)
    products = fftconvolve(looped, part[::-1], "valid")
    energy = fftconvolve(looped**2, np.ones(len(part)), "valid").clip(1.0)
    return float((products / np.sqrt(energy * (part @ part))).max())


def start_capture(page: Page) -> None:
    page.click("#capture-open")
    page.click("#consent-start")
    assert page.locator("#self").is_hidden()  # without consent nothing begins
    page.check("#consent-agree")
    page.click("#consent-start")
    page.wait_for_selector("#self:visible")


def test_a_browsers_capture_yields_scores(equipped: Browser, faults: list[str]) -> None:
    scores, ingest = free_endpoint(), free_endpoint()
    with (
        engine(scores, ingest),
        dashboard(scores, "--ingest", ingest) as dash,
        ScoreReceiver(scores, ["browser"], status=False) as receiver,
    ):
        page = opened(equipped, dash.url, faults)
        page.wait_for_selector("#link[data-state=live]")
        start_capture(page)
        page.wait_for_selector('[data-stream="browser"] .value')

        def whole() -> bool:
            message = receiver.receive(1000)
            return (
                isinstance(message, Score)
                and message.valence is not None
                and message.audio.present
                and message.video.present
            )

        await_true(whole)
        await_true(lambda: "messages sent" in page.inner_text("#self-counts"))
        page.click("#capture-stop")
        page.wait_for_selector("#self", state="hidden")
        start_capture(page)  # under the same name, though the engine still scores the first


def test_what_a_browser_captures_is_what_its_devices_gave(
    equipped: Browser, faults: list[str], recording: Path
) -> None:
    with (
        IngestReceiver("tcp://127.0.0.1:*") as receiver,
        dashboard(free_endpoint(), "--ingest", receiver.endpoint) as dash,
    ):
        page = opened(equipped, dash.url, faults)
        start_capture(page)
        sound: list[Audio] = []
        pictures: list[Video] = []

        def enough() -> bool:
            receiver.raw.poll(200)
            for message in receiver.receive_all():
                if isinstance(message, Audio):
                    sound.append(message)
                elif isinstance(message, Video):
                    pictures.append(message)
            return len(sound) >= 60 and len(pictures) >= 20

        await_true(enough)
    assert {len(message.samples) for message in sound} == {800}
    starts = np.array([message.envelope.t_start_ns for message in sound])
    gaps = sum(message.gap_samples for message in sound)
    if gaps == 0:
        # The count of samples is held to our clock: a chunk's time is steered, and never by more.
        assert np.abs(np.diff(starts) - 50_000_000).max() <= 50_000_000 * 2 * MAX_SLEW
    assert max(message.level_dbfs for message in sound) > -40
    assert any(message.has_face for message in pictures)
    assert {jpeg.opened(m).crop.shape for m in pictures if m.has_face} == {(48, 48, 3)}
    stamps = [message.envelope.t_end_ns for message in pictures]
    assert stamps == sorted(stamps)
    assert receiver.rejected.total() == 0
    heard = np.concatenate([message.samples for message in sound[20:40]])
    assert likeness(heard, recording / "microphone.wav") > 0.9


def test_the_browsers_resampler_keeps_tones_and_removes_aliases(
    browser: Browser, faults: list[str]
) -> None:
    script = """async ([rate, tones]) => {
        const {Resampler} = await import('/static/resample.js');
        return tones.map(hz => {
            const tone = (_, i) => Math.sin(2 * Math.PI * hz * i / rate);
            const whole = Float32Array.from({length: rate}, tone);
            const once = [...new Resampler(rate).push(whole)];
            const chunked = [];
            const resampler = new Resampler(rate);
            for (let i = 0; i < rate; i += 128) {
                chunked.push(...resampler.push(whole.subarray(i, i + 128)));
            }
            return [once, chunked];
        });
    }"""
    tones = (440, 3000, 11_000)
    with dashboard(free_endpoint()) as dash:
        page = opened(browser, dash.url, faults)
        for rate_hz in (48_000, 44_100, 16_000, 8_000):
            measured = page.evaluate(script, [rate_hz, tones])
            for hz, (once, chunked) in zip(tones, measured, strict=True):
                assert np.abs(np.subtract(once, chunked)).max() < 1e-6
                out = np.array(once)
                assert abs(len(out) - 16_000) < 100
                expected = np.sin(2 * np.pi * hz * np.arange(len(out)) / 16_000)
                middle = slice(200, -200)
                if hz < min(rate_hz, 16_000) / 2:
                    assert np.abs(out - expected)[middle].max() < 0.01
                elif rate_hz > 16_000:
                    assert np.abs(out[middle]).max() < 0.01
