"""Everybody at once: one line a second with the newest valence of each stream, asynchronously.

Start an engine with several (undertone run --stream alice=a.mp4 --stream bob=b.mp4).
Usage: python examples/many_streams.py [ENDPOINT]      (ends with Ctrl-C)
"""

import asyncio
import contextlib
import sys

from clients import AsyncSubscriber
from engine.wire.messages import Score


async def listen(subscriber: AsyncSubscriber, newest: dict[str, Score]) -> None:
    async for score in subscriber:
        newest[score.envelope.stream] = score


async def main(*endpoint: str) -> None:
    newest: dict[str, Score] = {}
    async with AsyncSubscriber(*endpoint) as subscriber:
        listener = asyncio.create_task(listen(subscriber, newest))
        while not listener.done():
            await asyncio.sleep(1)
            valences = (
                f"{name} {'  -  ' if score.valence is None else format(score.valence, '+.2f')}"
                for name, score in sorted(newest.items())
            )
            print("   ".join(valences) or "waiting for an engine", flush=True)


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main(*sys.argv[1:]))
