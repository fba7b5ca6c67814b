"""Clients: subscribe to scores, watch them, record them. A client knows only the wire."""

from clients.events import Event, Gap, Stale
from clients.subscriber import AsyncSubscriber, Subscriber

__all__ = ["AsyncSubscriber", "Event", "Gap", "Stale", "Subscriber"]
