"""A small cohort of synthetic heads."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustmri.data.cohort import Cohort
from robustmri.data.prepare import write_cohort
from scans import SliceList, slices_of


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return write_cohort(SliceList(slices_of()), tmp_path / "cohort", size=32)
