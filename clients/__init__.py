"""Clients: subscribe to scores, watch them, record them. A client knows only the wire."""

from clients.control import Control
from clients.events import Event, Gap, Stale
from clients.subscriber import AsyncSubscriber, Subscriber

__all__ = ["AsyncSubscriber", "Control", "Event", "Gap", "Stale", "Subscriber"]
