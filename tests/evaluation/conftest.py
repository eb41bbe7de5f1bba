"""An outcomes table written by hand: which images each attack fooled, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from robustmri.evaluation.plan import Plan, make_plan
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.models.classifier import ClassifierSpec

CLASSES = ("meningioma", "glioma", "pituitary")
SLICES_PER_PATIENT = 2


class Table:
    """Rows of `n` images; image i is of class i % 3 and of patient i // 2, and all are right before
    any attack.
    """

    def __init__(self, n: int, clean_wrong: Iterable[int] = ()) -> None:
        self.n, self.clean_wrong = n, set(clean_wrong)
        self.rows: list[dict[str, Any]] = []
        self.add("none", 0.0, clean_wrong, norm="")

    def add(
        self,
        attack: str,
        eps: float,
        fooled: Iterable[int],
        *,
        norm: str = "linf",
        target: str = "",
        **others: Any,
    ) -> Table:
        """Rows of one attack; `others` replaces a column of all its rows, or of image i where it is
        {i: value}.
        """
        fooled = set(fooled)
        for i in range(self.n):
            label, other = CLASSES[i % 3], CLASSES[(i + 1) % 3]
            distance = 0.0 if not np.isfinite(eps) or attack == "none" else eps
            row = {
                "case_id": f"case{i}",
                "index": i,
                "patient_id": f"P{i // 2}",
                "group": f"P{i // 2}",
                "label": label,
                "plane": "axial",
                "attack": attack,
                "norm": norm,
                "eps": eps,
                "eps_units": "image",
                "eps_image": eps,
                "target": target,
                "clean_prediction": other if i in self.clean_wrong else label,
                "prediction": (target or other) if i in fooled else label,
                "confidence": 0.9,
                "label_confidence": 0.1 if i in fooled else 0.9,
                "distance_linf": distance,
                "distance_l2": distance,
                "distance_l1": distance,
                "distance_l0": distance,
                "fooled": i in fooled,
                "verified": True,
                "gradients": 10,
                "forwards": 11,
                "cut_short": False,
                "broken_by": "",
            }
            for name, value in others.items():
                row[name] = value.get(i, row[name]) if isinstance(value, dict) else value
            self.rows.append(row)
        return self

    def columns(self) -> dict[str, np.ndarray]:
        """As read from Parquet: text as objects, numbers as numbers."""
        columns = {name: np.array([row[name] for row in self.rows]) for name in self.rows[0]}
        return {name: c.astype(object) if c.dtype.kind == "U" else c for name, c in columns.items()}


@pytest.fixture
def table() -> Callable[..., Table]:
    return Table


@pytest.fixture
def planned() -> Callable[..., Plan]:
    """Settings to a plan on twelve slices of two classes."""

    def plan(**settings: Any) -> Plan:
        labels = ("glioma", "meningioma") * 6
        cases = [SimpleNamespace(label=one, case_id=one, lesion_box=(0, 0, 1, 1)) for one in labels]
        split = SimpleNamespace(test=tuple(range(12)), validation=(0, 1))
        classes, facts = ("glioma", "meningioma"), {"std": settings.pop("std", 0.25)}
        facts["gradients"] = settings.pop("gradients", True)
        spec = ClassifierSpec(backbone="theirs", classes=classes, size=8, **facts)
        classifier = SimpleNamespace(classes=classes, spec=spec)
        cohort: Any = SimpleNamespace(cases=cases, channels=1, shape=(1, 8, 8))
        return make_plan(
            EvaluateSettings(**settings), cast(Any, classifier), cohort, cast(Any, split)
        )

    return plan
