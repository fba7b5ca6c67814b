"""The dashboard: scores in a browser, and the browser as a camera and microphone.

``board`` knows what there is to show, ``history`` remembers the last hour, ``bridge`` hands both
to any number of browsers, ``access`` says who may look, ``server`` speaks HTTP and websocket,
``packets`` and ``capture`` take a browser's own sound and pictures.
"""


class DashboardError(Exception):
    """A dashboard that cannot be started; one line."""
