"""Devices for tests: a virtual microphone (PulseAudio) and a camera (MJPEG over HTTP)."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import pytest

from engine.wire.ingest import IngestReceiver
from engine.wire.messages import Message

PROGRAMS = ("pulseaudio", "pactl", "paplay")


class VirtualMicrophone:
    """What ``play`` plays is what the default microphone hears."""

    def __init__(self, runtime: Path) -> None:
        socket = runtime / "native"
        self.environment = {
            **os.environ,
            "PULSE_SERVER": f"unix:{socket}",
            "PULSE_RUNTIME_PATH": str(runtime),
            "XDG_RUNTIME_DIR": str(runtime),
            "HOME": str(runtime),
        }
        modules = [
            f"module-native-protocol-unix socket={socket} auth-anonymous=1",
            "module-null-sink sink_name=vspk rate=16000 channels=1",
            "module-remap-source source_name=vmic master=vspk.monitor",
        ]
        command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]
        command += ["--disable-shm=yes", *(f"--load={module}" for module in modules)]
        self.log = (runtime / "log").open("wb")
        self.process = subprocess.Popen(
            command, env=self.environment, stdout=self.log, stderr=self.log
        )
        for choice in (["set-default-sink", "vspk"], ["set-default-source", "vmic"]):
            self._pactl(choice)

    def _pactl(self, arguments: list[str]) -> None:
        end = time.monotonic() + 15
        while subprocess.run(
            ["pactl", *arguments], env=self.environment, capture_output=True, check=False
        ).returncode:
            if time.monotonic() > end:
                pytest.skip("PulseAudio does not start here")
            time.sleep(0.2)

    def play(self, path: Path) -> subprocess.Popen[bytes]:
        """Start playing a sound file."""
        return subprocess.Popen(["paplay", str(path)], env=self.environment)

    def close(self) -> None:
        """End the daemon."""
        self.process.kill()
        self.process.wait()
        self.log.close()


@contextmanager
def virtual_microphone(runtime: Path) -> Iterator[VirtualMicrophone]:
    """A PulseAudio daemon of the test's own; the test is skipped where there is none."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    microphone = VirtualMicrophone(runtime)
    try:
        yield microphone
    finally:
        microphone.close()


@contextmanager
def mjpeg_camera(clip: Path, port: int = 0) -> Iterator[int]:
    """Serve a clip's pictures as MJPEG on loopback, again and again; yields the port."""
    capture = cv2.VideoCapture(str(clip))
    pictures = []
    while len(pictures) < 100 and (read := capture.read())[0]:
        pictures.append(cv2.imencode(".jpg", read[1])[1].tobytes())
    capture.release()
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            number = 0
            try:
                while not closing.is_set():
                    body = pictures[number % len(pictures)]
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n"
                    self.wfile.write(head.encode() + b"\r\n" + body + b"\r\n")
                    number += 1
                    time.sleep(0.04)
            except OSError:
                return

        def log_message(self, *args: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True

        def handle_error(self, request: object, client_address: object) -> None:
            return

    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def receive_until(
    receiver: IngestReceiver, done: Callable[[list[Message]], bool], seconds: float = 25
) -> list[Message]:
    """Collect what a capture worker sends until ``done`` says so; fails after ``seconds``."""
    found: list[Message] = []
    end = time.monotonic() + seconds
    while not done(found):
        assert time.monotonic() < end, f"waited in vain, got {len(found)} messages"
        found += receiver.receive_all()
        time.sleep(0.02)
    return found
