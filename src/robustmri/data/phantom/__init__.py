"""A seeded generator of synthetic heads with a brain tumour, as contrast-enhanced T1 slices."""

from __future__ import annotations

from robustmri.data.phantom.source import PhantomSource

__all__ = ["PhantomSource"]
