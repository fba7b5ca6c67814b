"""The control endpoint of a cluster: a request goes to the workers whose streams it is about.

A client asks here what it asks the one worker of ``run``. ``Desk`` knows the workers and asks them
through functions that it is given; ``run_desk`` is its socket and loop, a process of its own, so
that a worker that does not answer delays only the client that asked.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import msgspec

from engine.settings import EngineSettings
from engine.wire.clock import this_clock
from engine.wire.control import ControlClient, ControlServer, Request, parse
from engine.wire.fields import WireError
from engine.wire.link import DirectoryLink
from engine.wire.membership import Ask, Report
from engine.wire.messages import SCHEMA
from engine.wire.security import ClientSecurity, ServerSecurity

log = logging.getLogger(__name__)

DIRECTORY_MS = 500
ANSWER_S = 1.0
"""What a worker has not answered by then counts as not done, and is named in the reply."""
AT_ONCE = 16
STEP_S = 0.25
POLL_MS = 100
MAX_NAMED = 1000
"""Streams and workers in a reply to ``describe``."""

Values = Mapping[str, Any]
"""A request's or reply's map."""


@dataclass(frozen=True, slots=True)
class Post:
    """A worker as the directory knows it."""

    name: str
    pid: int
    control: str
    streams: tuple[str, ...]


Replies = dict[Post, Values | WireError]
AskWorkers = Callable[[Sequence[Post], Values], Replies]


class Desk:
    """Carries out requests.

    Args:
        posts: the workers that are heard now.
        ask: puts one request to some of them, and returns what each replied in time.
        facts: what ``describe`` says of the cluster itself.
    """

    def __init__(
        self, posts: Callable[[], Sequence[Post]], ask: AskWorkers, facts: Values | None = None
    ) -> None:
        self._posts, self._ask, self._facts = posts, ask, facts or {}
        self._paused: set[tuple[str, int]] | None = None
        """The processes that were paused; None while the cluster runs."""

    def answer(self, values: Values) -> Values:
        """Reply to one request.

        Raises:
            WireError: the request is none, or nobody could carry it out.
        """
        request = parse(values)
        match request.command:
            case "describe":
                return self._describe()
            case "mark":
                return self._mark(request, values)
            case "pause" | "resume":
                return self._turn(request.command)
            case "ping" | "clock" if request.stream is not None:
                return self._of(request.stream, values)
            case "ping" | "clock":
                raise WireError(
                    "request.stream: expected the name of a stream, got nil: "
                    "each worker of a cluster has its host's clock"
                )
        raise WireError("release: expected from a capture, at its worker's own endpoint")

    def step(self) -> None:
        """While the cluster is paused, pause who has come since."""
        if self._paused is not None:
            new = [post for post in self._posts() if (post.name, post.pid) not in self._paused]
            if new:
                self._pause(new)

    def _mark(self, request: Request, values: Values) -> Values:
        if request.stream is not None:
            return self._of(request.stream, values)
        replies = self._ask([post for post in self._posts() if post.streams], values)
        reached = sum(int(reply.get("streams", 0)) for reply in _taken(replies).values())
        faults = _faults(replies)
        if faults and not reached:
            raise WireError("; ".join(faults))
        return {"streams": reached, "failed": faults}

    def _of(self, stream: str, values: Values) -> Values:
        """Put a request to the worker that holds the stream."""
        camera = stream.partition("/")[0]  # people before one camera live where it does
        posts = self._posts()
        holder = next((post for post in posts if camera in post.streams), None)
        if holder is None:
            known = sorted(name for post in posts for name in post.streams)
            raise WireError(f"no stream {stream!r}; known: {', '.join(known[:8]) or 'none'}")
        reply = self._ask([holder], values)[holder]
        if isinstance(reply, WireError):
            raise reply
        return reply

    def _turn(self, command: str) -> Values:
        posts = self._posts()
        if command == "pause":
            self._paused = set()
            faults = self._pause(posts)
        else:
            self._paused = None
            faults = _faults(self._ask(posts, {"command": "resume"}))
        if len(faults) == len(posts):
            raise WireError("; ".join(faults) or "no worker is heard")
        return {"state": "paused" if command == "pause" else "running", "failed": faults}

    def _pause(self, posts: Sequence[Post]) -> list[str]:
        replies = self._ask(posts, {"command": "pause"})
        if self._paused is not None:
            self._paused |= {(post.name, post.pid) for post in _taken(replies)}
        return _faults(replies)

    def _describe(self) -> Values:
        replies = _taken(self._ask(self._posts(), {"command": "describe"}))
        if not replies:
            raise WireError("no worker is heard")
        streams = sorted(name for post in replies for name in post.streams)
        states = {post.name: str(reply["state"]) for post, reply in replies.items()}
        first = next(iter(replies.values()))
        return {
            **first,
            **self._facts,
            "state": next((s for s in ("running", "ready") if s in states.values()), "paused"),
            "streams": streams[:MAX_NAMED],
            "stream_count": len(streams),
            "workers": dict(list(states.items())[:MAX_NAMED]),
        }


def _taken(replies: Replies) -> dict[Post, Values]:
    return {post: reply for post, reply in replies.items() if not isinstance(reply, WireError)}


def _faults(replies: Replies) -> list[str]:
    return [f"{p.name}: {fault}" for p, fault in replies.items() if isinstance(fault, WireError)]


class Switchboard:
    """Finds the workers through the directory, and asks them at their own control endpoints.

    Args:
        link: the connection to the directory.
        security: the pool's keys, with CURVE.
    """

    def __init__(self, link: DirectoryLink, security: ClientSecurity | None) -> None:
        self._link, self._security = link, security
        self._posts: tuple[Post, ...] = ()
        self._pool = ThreadPoolExecutor(AT_ONCE, "asking")

    def posts(self) -> Sequence[Post]:
        """The workers that are heard; where the directory is away, those that it named last."""
        self._link.receive_all()  # an answer that came too late is none to this question
        with contextlib.suppress(WireError):
            answer = self._link.ask(Ask("status"), DIRECTORY_MS)
            if isinstance(answer, Report):
                self._posts = tuple(_posts_in(answer.values))
        return self._posts

    def ask(self, posts: Sequence[Post], values: Values) -> Replies:
        """Put one request to some workers at once."""
        asked = {self._pool.submit(self._ask_one, post, values): post for post in posts}
        done, _ = wait(asked, ANSWER_S)
        late = WireError(f"no reply within {ANSWER_S:.0f} s")
        return {post: work.result() if work in done else late for work, post in asked.items()}

    def _ask_one(self, post: Post, values: Values) -> Values | WireError:
        arguments = {key: value for key, value in values.items() if key != "command"}
        try:
            with ControlClient(post.control, int(ANSWER_S * 1000), self._security) as client:
                return client.request(str(values["command"]), **arguments)
        except WireError as fault:
            return fault

    def close(self) -> None:
        """Let the requests that are under way end."""
        self._pool.shutdown(cancel_futures=True)


def _posts_in(status: Values) -> Iterable[Post]:
    for worker in status["workers"]:
        if worker["state"] != "silent":
            yield Post(worker["name"], worker["pid"], worker["control"], tuple(worker["streams"]))


def run_desk(
    settings: EngineSettings,
    directory: str,
    stopped: Callable[[], bool],
    security: ServerSecurity | None = None,
) -> None:
    """Run the desk in this process until ``stopped``.

    Raises:
        WireError: the endpoint is in use.
    """
    member = None if security is None else security.as_client()
    facts = {
        "schema": SCHEMA,
        "detail": "a cluster",
        "scores": settings.scores,
        "ingest": None,
        "directory": directory,
        "clock": msgspec.to_builtins(this_clock()),
    }
    with (
        ControlServer(settings.control, security) as server,
        DirectoryLink(directory, member) as link,
        contextlib.closing(Switchboard(link, member)) as board,
    ):
        desk = Desk(board.posts, board.ask, facts)

        def answer(values: Values) -> Values:
            stopped()  # each request is a turn: a busy desk must not be taken for a hung one
            return desk.answer(values)

        log.info("control on %s", server.endpoint)
        stepped_s = time.monotonic()
        while not stopped():
            server.raw.poll(POLL_MS)
            server.serve(answer)
            if time.monotonic() - stepped_s >= STEP_S:
                desk.step()
                stepped_s = time.monotonic()
