"""Capture workers: each owns one device or clip and sends what the wire defines."""

from models.errors import UserError


class CaptureError(UserError):
    """A device or clip that is unavailable; one line that says what was expected."""
