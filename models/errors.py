"""The one class of errors that are for the user."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that a restart cannot mend: a missing file, a wrong value, an absent package.

    The text is for the user: one line with expected and actual value. Commands print it and end
    with code 2; anything else is a fault of ours and shows its traceback.
    """
