"""A bundle that holds a recogniser, for tests of words."""

from __future__ import annotations

import os

import pytest

from models import bundle as bundles
from models.bundle import Bundle

VARIABLE = "WORDS_BUNDLE"
"""Names a bundle to test where the packaged one has no recogniser."""


def bundle_name() -> str:
    """Name or directory of the bundle to test."""
    return os.environ.get(VARIABLE, "default")


def words_bundle() -> Bundle:
    """The packaged bundle, or the one that WORDS_BUNDLE names; skips without a recogniser."""
    opened = bundles.open(bundle_name())
    if opened.config.recogniser is None:
        pytest.skip(f"bundle {opened.config.name!r} holds no recogniser")
    return opened
