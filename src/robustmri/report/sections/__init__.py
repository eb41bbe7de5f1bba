"""The sections of a report, in order: each a function of the page and a template of its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robustmri.report.page import Page
from robustmri.report.sections.checks import checks
from robustmri.report.sections.confusion import confusion
from robustmri.report.sections.curve import curve
from robustmri.report.sections.limits import limits
from robustmri.report.sections.masthead import masthead
from robustmri.report.sections.numbers import numbers
from robustmri.report.sections.pictures import pictures
from robustmri.report.sections.provenance import provenance
from robustmri.report.sections.reading import reading
from robustmri.report.sections.strata import strata
from robustmri.report.sections.threat import threat

Section = Callable[[Page], dict[str, Any] | None]
SECTIONS: tuple[Section, ...] = (
    masthead,
    pictures,
    numbers,
    curve,
    strata,
    confusion,
    checks,
    threat,
    reading,
    limits,
    provenance,
)
"""Each gives what its template `NAME.html.j2` shows, or None where the results do not have it."""
