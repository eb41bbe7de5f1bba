"""Results as an evaluation would leave them, drawn from a seed: no network, no scans."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from robustmri.results.schema import (
    AttackRun,
    Check,
    CohortFacts,
    Confusion,
    Example,
    ModelFacts,
    NormFacts,
    Result,
    RobustnessReport,
    SplitFacts,
    save_result,
)

CLASSES = ("meningioma", "glioma", "pituitary")
STD = 0.225
GRID = ("pgd", "worst")
# Share of slices that stay right at eps 0.04, per attack.
STRENGTH = {"fgsm": 0.30, "bim": 0.004, "pgd": 0.002, "cw": 0.002, "worst": 0.0}
REPAIRED = {"fgsm": 0.86, "bim": 0.80, "pgd": 0.78, "cw": 0.77, "worst": 0.755}
RADII = (0.005, 0.01, 0.02, 0.03, 0.04)

TITLES = {"noise": "Random noise", "standard": "Standard suite"}
NORMS = {
    "linf": NormFacts(title="l-infinity", meaning="largest change of any pixel", per_pixel=True),
    "l2": NormFacts(title="l2", meaning="l2 size of the change", per_pixel=False),
}
MEMBERS = {"apgd": "APGD", "apgd-ce": "APGD-CE", "square": "Square"}


def draw_head(
    size: int, label: str, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A toy axial slice in [0, 1] and its lesion mask."""
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    warp = 0.012 * np.sin(9 * np.arctan2(y, x) + generator.uniform(0, 6))
    radius = np.hypot(x / 0.36, y / 0.43) + warp
    image = np.where(radius < 1, 0.36, 0.0) + np.where((radius > 0.93) & (radius < 1.0), 0.35, 0.0)
    image = np.where((radius > 0.87) & (radius < 0.93), 0.06, image)
    folds = 0.05 * np.sin(42 * x + 6 * np.sin(17 * y + generator.uniform(0, 6))) * np.cos(37 * y)
    image = image + np.where(radius < 0.86, folds + 0.08 * (radius < 0.68), 0.0)
    for side in (-1, 1):
        image = np.where(np.hypot((x - side * 0.05) / 0.035, (y + 0.02) / 0.1) < 1, 0.12, image)
    side = generator.choice([-1, 1])
    centre = {"glioma": (side * 0.15, -0.1), "pituitary": (0.0, 0.13)}.get(
        label, (side * 0.23, 0.05)
    )
    reach = {"glioma": 0.085, "pituitary": 0.045}.get(label, 0.07) * generator.uniform(0.85, 1.2)
    angle = np.arctan2(y - centre[1], x - centre[0])
    lesion = (
        np.hypot(x - centre[0], y - centre[1])
        * (1 + 0.12 * np.sin(5 * angle + generator.uniform(0, 6)))
        < reach
    )
    image = np.where(lesion, 0.85, image)
    if label == "glioma":
        image = np.where(np.hypot(x - centre[0], y - centre[1]) < 0.5 * reach, 0.3, image)
    image = image + 0.02 * generator.standard_normal(image.shape) * (radius < 1.02)
    return np.clip(image / image.max(), 0, 1), lesion


def _bootstrap(
    right: np.ndarray, groups: np.ndarray, generator: np.random.Generator
) -> tuple[float, float]:
    names = np.unique(groups)
    sums = np.array([right[groups == name].sum() for name in names])
    sizes = np.array([(groups == name).sum() for name in names])
    draws = generator.integers(0, len(names), size=(400, len(names)))
    low, high = np.percentile(sums[draws].sum(1) / sizes[draws].sum(1), [2.5, 97.5])
    if right.sum() == 0:
        high = 3 / len(names)
    return float(low), float(min(high, 1.0))


def build_result(
    folder: Path,
    *,
    repaired: bool = False,
    seed: int = 0,
    patients: int = 36,
    classes: tuple[str, ...] = CLASSES,
    size: int = 48,
    images: bool = True,
    pictures_per_class: int = 2,
    synthetic: bool = False,
    groups: str = "patient",
    split: str = "patient",
    normalised: bool = False,
    checks: tuple[Check, ...] = (),
    attacks: tuple[str, ...] = ("fgsm", "bim", "pgd", "cw", "worst"),
    name: str | None = None,
    start: str | None = None,
    backbone: str = "resnet18",
    title: str = "Brain tumour type from contrast-enhanced T1 MRI",
) -> Path:
    """Write robustness.json, outcomes.parquet and examples.npz; both stages of one seed share their
    cases.
    """
    cases = np.random.default_rng(seed)
    generator = np.random.default_rng([seed, repaired])
    label_of = cases.choice(
        classes,
        size=patients,
        p=np.array([1, 2, 1.3, *[1] * 20])[: len(classes)]
        / np.array([1, 2, 1.3, *[1] * 20])[: len(classes)].sum(),
    )
    label_of[: len(classes)] = classes
    sizes = cases.integers(4, 20, size=patients)
    case_ids = [f"P{100 + p:03d}/slice_{s:03d}" for p in range(patients) for s in range(sizes[p])]
    patient = np.repeat([f"P{100 + p:03d}" for p in range(patients)], sizes)
    label = np.repeat(label_of, sizes)
    plane = cases.choice(["axial", "coronal", "sagittal"], size=len(label))
    ease = np.repeat(cases.normal(0, 1.0, size=patients), sizes) + 0.9 * cases.standard_normal(
        len(label)
    )
    order = ease.argsort().argsort() / len(label)
    strength = REPAIRED if repaired else STRENGTH
    clean_right = order >= (0.075 if repaired else 0.017)
    columns: dict[str, list[Any]] = {}
    results: list[Result] = []
    clean_prediction = _predict(label, clean_right, classes, generator)
    clean_confidence = np.clip(
        0.55 + 0.45 * generator.beta(6, 1, len(label)) - 0.25 * ~clean_right, 0.34, 0.9999
    )

    def record(
        attack: str, eps: float, units: str, eps_image: float, right: np.ndarray, norm: str = "linf"
    ) -> None:
        prediction = (
            clean_prediction if attack == "none" else _predict(label, right, classes, generator)
        )
        held, fell = (
            0.5 + 0.4 * generator.random(len(label)),
            0.8 + 0.1999 * generator.beta(8, 1, len(label)),
        )
        sure = clean_confidence if attack == "none" else np.where(right, held, fell)
        distance = np.full(len(label), 0.0 if attack == "none" else eps_image)
        row = {
            "case_id": case_ids,
            "index": range(len(label)),
            "patient_id": patient,
            "group": patient,
            "label": label,
            "plane": plane,
            "attack": [attack] * len(label),
            "norm": ["" if attack == "none" else norm] * len(label),
            "eps": [eps] * len(label),
            "eps_units": [units] * len(label),
            "eps_image": [eps_image] * len(label),
            "target": [""] * len(label),
            "clean_prediction": clean_prediction,
            "clean_confidence": clean_confidence,
            "prediction": prediction,
            "confidence": sure,
            "label_confidence": np.where(right, sure, 1 - sure),
            "distance_linf": distance,
            "distance_l2": distance * size,
            "fooled": ~right,
            "verified": [True] * len(label),
            "gradients": [0] * len(label),
            "forwards": [1] * len(label),
        }
        for key, values in row.items():
            columns.setdefault(key, []).extend(np.asarray(values).tolist())
        minimal = math.isinf(eps)
        shared: dict[str, Any] = {
            "attack": attack,
            "norm": "" if attack == "none" else norm,
            "eps": None if minimal or attack == "none" else eps,
            "eps_units": units,
            "eps_image": None if minimal or attack == "none" else eps_image,
            "median_distance": 0.41 * (3 if repaired else 1) if minimal else None,
        }
        low, high = _bootstrap(right, patient, generator)
        results.append(
            Result(
                unit="slice",
                n=len(label),
                accuracy=float(right.mean()),
                ci_low=low,
                ci_high=high,
                interval="cluster bootstrap over patients, 2000 draws",
                **shared,
            )
        )
        whole = np.array([right[patient == who].mean() > 0.5 for who in np.unique(patient)])
        low, high = _bootstrap(whole, np.arange(len(whole)), generator)
        results.append(
            Result(
                unit="patient",
                n=len(whole),
                accuracy=float(whole.mean()),
                ci_low=low,
                ci_high=high,
                interval="bootstrap over patients, 2000 draws",
                **shared,
            )
        )

    record("none", 0.0, "image", 0.0, clean_right)
    for attack in attacks:
        for eps in RADII if attack in GRID else RADII[-1:]:
            kept = clean_right.mean() * (1 - eps / RADII[-1]) ** (
                1.0 if repaired else 6.0
            ) + strength[attack] * (eps / RADII[-1]) ** (1.0 if repaired else 0.1)
            record(attack, eps, "image", eps, clean_right & (order >= 1 - kept))
        if normalised:
            kept = (
                0.5 * (strength[attack] + clean_right.mean())
                if repaired
                else strength[attack] + 0.08
            )
            record(
                attack, RADII[-1], "normalised", RADII[-1] * STD, clean_right & (order >= 1 - kept)
            )
    if "cw" in attacks:
        record("cw-l2", math.inf, "image", math.inf, clean_right & (order >= 0.995), "l2")

    folder.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "outcomes.parquet")
    examples = []
    if images:
        examples = _save_examples(
            folder, columns, case_ids, label, classes, pictures_per_class, size, cases
        )
    report = RobustnessReport(
        title=title,
        model=ModelFacts(
            name=name or ("adversarial training" if repaired else "standard training"),
            backbone=backbone,
            objective="adversarial" if repaired else "standard",
            weights="imagenet (torchvision, IMAGENET1K_V1)",
            checkpoint_sha256=("ab" if repaired else "cd") * 32,
            training={
                "epochs": 12,
                "batch_size": 64,
                "learning_rate": 0.001,
                "attack": {"name": "pgd", "steps": 7},
            },
        ),
        cohort=CohortFacts(
            name="phantom" if synthetic else "t1ce",
            synthetic=synthetic,
            classes=list(classes),
            size=size,
            intensity="minmax",
            groups=groups,
            fingerprint="0123456789abcdef",
            n_cases=len(label) * 6,
            n_patients=patients * 6,
            left_out=2,
        ),
        split=SplitFacts(
            kind=split,
            seed=0,
            fold=None,
            fingerprint="fedcba9876543210",
            evaluated_set="test",
            note=(
                "Slices of one patient are on both sides of this split, so the accuracy is that "
                "of recognising a patient seen before."
            )
            if split == "slice"
            else "No patient is in two sets.",
            n_slices=len(label),
            n_patients=patients,
            leakage=[
                Check(name="Patient overlap", status="pass", detail="No patient is in two sets.")
            ],
        ),
        norms=NORMS,
        threat=[
            "The attacker knows the classifier entirely (white box) and changes the image after "
            "it was scanned.",
            "Every pixel may change by at most eps = 0.04 of the [0, 1] range: 10.2 of 255 grey "
            "levels, 0.178 after normalisation.",
            "The goal is any wrong answer (evasion, untargeted).",
        ],
        attacks=[
            AttackRun(
                attack=attack,
                title=TITLES.get(attack, attack.upper()),
                paper="",
                doi="10.1/2" if attack == "pgd" else "",
                minimal=attack == "cw-l2",
                iterative=attack not in ("noise", "fgsm"),
                knowledge="gradients",
                members=MEMBERS if attack == "standard" else {},
                eps="0.04",
                slices=len(label),
                gradients_per_image=1.0 + repaired,
                forwards_per_image=2.0,
                settings={
                    "attack": attack.upper(),
                    "steps": 1 if attack == "fgsm" else 20,
                    "restarts": 1,
                },
            )
            for attack in (*attacks, "cw-l2", "standard")
            if attack != "worst"
        ],
        results=results,
        checks=[
            Check(
                name="Every attacked slice re-verified",
                status="pass",
                detail="By a fresh forward pass in fp32.",
            ),
            Check(
                name="Iterative at least as strong as one step",
                status="pass",
                detail="PGD 0.2 %, FGSM 30.0 %.",
            ),
            Check(
                name="Twice the steps",
                status="warn",
                detail="Robust accuracy moved by 0.8 points.",
                case_ids=case_ids[:3],
            ),
            *checks,
        ],
        confusions=_confusions(columns, classes),
        examples=examples,
        settings={
            "seed": 0,
            "batch_size": 64,
            "attacks": list(attacks),
            "eps": list(RADII),
            "normalised": normalised,
        },
        provenance={
            "robustmri": "0.1.0",
            "commit": "45d133f",
            "packages": {"torch": "2.13.0"},
            "seed": 0,
            "command": (
                "robustmri evaluate /home/dr-weiss/runs/standard /data/cohort --out "
                "/home/dr-weiss/x"
            ),
            "checkpoint": {
                "command": "robustmri train dr-weiss/cohort",
                "start": start if start is not None else "cd" * 32 if repaired else "scratch",
            },
            "created": "2025-01-02T03:04:05+00:00",
        },
    )
    save_result(report, folder)
    return folder


def _predict(
    label: np.ndarray, right: np.ndarray, classes: tuple[str, ...], generator: np.random.Generator
) -> np.ndarray:
    place = np.array([classes.index(name) for name in label])
    other = (place + 1 + (generator.random(len(label)) > 0.7) * (len(classes) - 2)) % len(classes)
    return np.array(classes)[np.where(right, place, other)]


def _confusions(columns: dict[str, list[Any]], classes: tuple[str, ...]) -> list[Confusion]:
    counts: dict[tuple[Any, ...], np.ndarray] = {}
    for attack, norm, eps, units, true, said in zip(
        *(columns[key] for key in ("attack", "norm", "eps", "eps_units", "label", "prediction")),
        strict=True,
    ):
        if attack == "none" or eps == RADII[-1]:
            table = counts.setdefault(
                (attack, norm, eps, units), np.zeros((len(classes), len(classes)), dtype=int)
            )
            table[classes.index(true), classes.index(said)] += 1
    return [
        Confusion(
            attack=attack,
            norm=norm,
            eps=None if attack == "none" else eps,
            eps_units=units,
            counts=table.tolist(),
        )
        for (attack, norm, eps, units), table in counts.items()
    ]


def _save_examples(
    folder: Path,
    columns: dict[str, list[Any]],
    case_ids: list[str],
    label: np.ndarray,
    classes: Sequence[str],
    per_class: int,
    size: int,
    generator: np.random.Generator,
) -> list[Example]:
    rows = [
        row
        for row, (attack, eps, units) in enumerate(
            zip(columns["attack"], columns["eps"], columns["eps_units"], strict=True)
        )
        if (attack, eps, units) == ("fgsm", RADII[-1], "image") and columns["fooled"][row]
    ]
    rows = [
        row
        for name in classes
        for row in [row for row in rows if columns["label"][row] == name][:per_class]
    ]
    arrays: dict[str, list[np.ndarray]] = {"clean": [], "attacked": [], "sign": [], "mask": []}
    examples = []
    for position, row in enumerate(rows):
        image, mask = draw_head(size, columns["label"][row], generator)
        sign = np.sign(generator.standard_normal(image.shape)).astype(np.int8)
        arrays["clean"].append(np.rint(image * 65535).astype(np.uint16))
        arrays["attacked"].append(np.clip(image + RADII[-1] * sign, 0, 1).astype(np.float32))
        arrays["sign"].append(sign)
        arrays["mask"].append(mask)
        examples.append(
            Example(
                **{
                    key: columns[key][row]
                    for key in ("case_id", "patient_id", "label", "clean_prediction", "attack")
                },
                **{
                    key: columns[key][row]
                    for key in ("clean_confidence", "norm", "eps", "eps_units", "prediction")
                },
                **{key: columns[key][row] for key in ("confidence", "distance_linf")},
                position=position,
            )
        )
    stacks: dict[str, Any] = {name: np.stack(stack) for name, stack in arrays.items()}
    np.savez_compressed(folder / "examples.npz", **stacks)
    return examples


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Settings to a result folder that is written once. Read it, do not change it."""
    known: dict[str, Path] = {}

    def of(**settings: Any) -> Path:
        key = repr(sorted(settings.items()))
        if key not in known:
            known[key] = build_result(tmp_path_factory.mktemp("built"), **settings)
        return known[key]

    return of


@pytest.fixture
def build(tmp_path: Path, built: Callable[..., Path]) -> Callable[..., Path]:
    """`build("before", repaired=False, ...)` makes a result folder of one's own and returns it."""

    def copy(where: str, **settings: Any) -> Path:
        return shutil.copytree(built(**settings), tmp_path / where, dirs_exist_ok=True)

    return copy


@pytest.fixture
def pair(build: Callable[..., Path]) -> list[Path]:
    """A standard network and a repaired one, on the same cases."""
    return [build("before"), build("after", repaired=True)]


def settle(folder: Path) -> Path:
    """Make a result's numbers follow from its outcomes, as those of an evaluation do."""
    import msgspec

    from robustmri.evaluation.metrics import count_confusions, summarise
    from robustmri.results.outcomes import columns_of, read_table
    from robustmri.results.schema import load_result

    result, outcomes = load_result(folder), columns_of(read_table(folder))
    numbers = summarise(outcomes)
    confusions = count_confusions(outcomes, result.cohort.classes)
    save_result(msgspec.structs.replace(result, results=numbers, confusions=confusions), folder)
    return folder
