"""The dashboard: scores in a browser, and the browser as a camera and microphone.

``board`` knows what there is to show, ``history`` remembers the last hour, ``bridge`` hands both
to any number of browsers, ``access`` says who may look, ``server`` speaks HTTP and websocket. A
browser's own sound and pictures go to the engine's ``capture.browser``, which the server is given.
"""


class DashboardError(Exception):
    """A dashboard that cannot be started; one line."""
