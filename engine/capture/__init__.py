"""Capture workers: each owns one device or clip and sends what the wire defines."""


class CaptureError(Exception):
    """A device or clip that cannot be had; one line that says what was expected."""
