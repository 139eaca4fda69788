"""Fixtures that every test may use. Real data is read where it is there; its absence is a reason to skip."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# A test says nothing of speed: on a busy machine an example takes as long as it takes.
settings.register_profile("testudo", deadline=None)
settings.load_profile("testudo")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository; see its README for what is in it."""
    folder = Path(__file__).resolve().parents[1] / "../shared/data"
    if not folder.is_dir():
        pytest.skip("no real data beside this repository (../shared/data)")
    return folder
