"""Detectors of attacked slices, held against an attack that does not know them and one that does:
never the one without the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from robustmri.attacks import Attack, make_attack
from robustmri.attacks.engine import SeededGenerator
from robustmri.core.arrays import Images, Labels
from robustmri.core.errors import DataError, SettingsError, did_you_mean
from robustmri.core.files import fingerprint
from robustmri.core.progress import Progress, silent
from robustmri.data.cohort import Cohort
from robustmri.data.loaders import load_images, load_labels
from robustmri.data.split import Split
from robustmri.evaluation.attacked import verify
from robustmri.evaluation.detectors import DETECTORS, Judge, calibrate, fewest, last_linear
from robustmri.evaluation.exact import logits_of
from robustmri.evaluation.halving import Room, in_halves
from robustmri.evaluation.intervals import share_interval
from robustmri.evaluation.joint_attack import search_unnoticed
from robustmri.evaluation.plan import Plan, make_plan
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.evaluation.shards import divide, run_shards, shards_of
from robustmri.evaluation.trial import Trial
from robustmri.losses import margin
from robustmri.models.classifier import Classifier, device_of
from robustmri.results.detection import DetectorResult, Share
from robustmri.results.outcomes import Outcomes, table_of

if TYPE_CHECKING:
    import pyarrow as pa

ATTACK = "pgd"
"""On the classifier alone; run to its end, since what stops at the boundary is easier to notice."""


class Fitted(NamedTuple):
    """A detector that is ready: what judges, its threshold, the slices and patients that it was set
    on, and the usual sizes of the classifier's lead and of a score's distance to the threshold.
    """

    judge: Judge
    threshold: float
    slices: int
    patients: int
    units: tuple[float, float]


def detection_plan(
    settings: EvaluateSettings, classifier: Classifier, cohort: Cohort, split: Split
) -> Plan | None:
    """The untouched slices, and the attack on the classifier alone, at the first eps; None where no
    detector is asked for.

    Raises:
        SettingsError: no such detector, one that does not fit the classifier, or a threat in which
            it cannot be attacked.
        DataError: too few validation slices for the threshold, or no training slices.
    """
    for name in (names := detectors_of(settings)):
        if name not in DETECTORS:
            raise SettingsError(
                f"There is no detector {name!r}. {did_you_mean(name, DETECTORS)} 'all' alone names "
                "all of them."
            )
    if not names:
        return None
    if not classifier.spec.gradients:
        raise SettingsError(
            f"{classifier.spec.backbone} only answers, it offers no gradient, and a detector is "
            "told only with an attack on both. Leave --detectors out."
        )
    if settings.threat:
        raise SettingsError(
            "detectors are attacked within a norm, and this evaluation is about the threat "
            f"{settings.threat}. Leave --detectors out, or evaluate once more without --threat."
        )
    if settings.evaluated_set == "validation":
        raise SettingsError(
            "a detector's threshold is set on the validation patients, who are evaluated here. "
            "Leave --detectors out, or evaluate the test set."
        )
    least = fewest(settings.false_alarms)
    if len(split.validation) < least:
        raise DataError(
            f"the split has {len(split.validation)} validation slices, and it takes {least} to set "
            f"a threshold for {settings.false_alarms:g} false alarms. Raise that (--set "
            "false_alarms=0.1), or split again with more validation patients."
        )
    if "mahalanobis" in names:
        last_linear(classifier)
        if not split.train:
            raise DataError(
                "mahalanobis learns from training slices, and the split has none. Leave it out: "
                "--detectors feature-squeezing."
            )
    alone = msgspec.structs.replace(
        settings,
        attacks=(ATTACK,),
        options={name: given for name, given in settings.options.items() if name == ATTACK},
        eps=settings.eps[:1],
        curve=(),
        corruptions=(),
    )
    return make_plan(alone, classifier, cohort, split)


def detectors_of(settings: EvaluateSettings) -> list[str]:
    """Names of the detectors that are asked for."""
    return list(DETECTORS if settings.detectors == ("all",) else dict.fromkeys(settings.detectors))


def run_detection(
    plan: Plan,
    classifier: Classifier,
    cohort: Cohort,
    split: Split,
    folder: Path,
    *,
    identity: str,
    device: torch.device,
    progress: Progress = silent,
) -> pa.Table:
    """A row for each detector and evaluated slice. Resumed, and shared between processes, as an
    evaluation is.
    """
    settings, (clean, trial) = plan.settings, plan.trials[:2]
    classifier = classifier.to(device).eval().requires_grad_(False)
    names, size = detectors_of(settings), settings.batch_size
    fitted = {name: fit(name, classifier, cohort, split, settings, device) for name in names}
    work = [
        (name, number, rows)
        for name in names
        for number, rows in enumerate(divide(clean.rows, size))
    ]
    shards = shards_of(
        folder, ["detection", msgspec.to_builtins(settings), identity, split.fingerprint]
    )
    attack, room = make_attack(ATTACK, **settings.options.get(ATTACK, {})), Room()

    def make(place: int) -> pa.Table:
        import pyarrow as pa

        name, number, rows = work[place]
        seed = int(fingerprint([settings.seed, name, number]), 16) >> 1
        generator = torch.Generator().manual_seed(seed)

        def part(some: Sequence[int]) -> pa.Table:
            found = _attack(fitted[name], attack, classifier, cohort, trial, some, plan, generator)
            return table_of({"detector": [name] * len(some), **found})

        return pa.concat_tables(in_halves(part, rows, generator, room))

    def tell(place: int, table: pa.Table, done: int, of: int) -> None:
        progress("detection", done, of, f"{work[place][0]}: {len(work[place][2])} slices")

    paths = [shards / f"{name}-{number:04d}.parquet" for name, number, _ in work]
    return run_shards(paths, make, tell)


def fit(
    name: str,
    classifier: Classifier,
    cohort: Cohort,
    split: Split,
    settings: EvaluateSettings,
    device: torch.device,
) -> Fitted:
    """Learn from the training slices, and set the threshold on the validation slices; none of
    either is attacked.
    """

    def batches(rows: Sequence[int]) -> Iterator[tuple[Images, Labels]]:
        for some in divide(sorted(rows), settings.batch_size):
            yield load_images(cohort, some).to(device), load_labels(cohort, some).to(device)

    judge = DETECTORS[name].fit(classifier, batches(split.train))
    scores, leads = [], []
    with torch.no_grad():
        for images, labels in batches(split.validation):
            logits, _, score = judge(images)
            scores.append(score)
            leads.append(margin(logits, labels).abs())
    score, lead = torch.cat(scores), torch.cat(leads)
    threshold = calibrate(score, settings.false_alarms)
    away = (threshold - score).abs()
    return Fitted(
        judge,
        threshold,
        slices=len(score),
        patients=len({cohort.cases[row].group for row in split.validation}),
        units=(max(float(lead.median()), 1e-6), max(float(away.median()), 1e-6)),
    )


def _attack(
    fitted: Fitted,
    attack: Attack,
    classifier: Classifier,
    cohort: Cohort,
    trial: Trial,
    rows: Sequence[int],
    plan: Plan,
    generator: torch.Generator,
) -> dict[str, Any]:
    """Columns of some slices: those that are right, and not of the target class, are attacked."""
    device = device_of(classifier)
    images, labels = load_images(cohort, rows).to(device), load_labels(cohort, rows).to(device)
    threat = plan.confine(trial.threat, cohort, rows, device)
    answers = logits_of(classifier, images).argmax(1)
    attacked = answers == labels
    if threat.target is not None:
        attacked &= labels != threat.target
    turned, unnoticed = torch.zeros_like(attacked), torch.zeros_like(attacked)
    # One number for each image, attacked or not, so that it finds the same in any company.
    numbers = torch.randint(2**62, (len(rows),), generator=generator).tolist()
    with torch.no_grad():
        before = fitted.judge(images).score
    after, joint = before.clone(), before.clone()
    if attacked.any():
        places = torch.nonzero(attacked)[:, 0]
        x, y, here = images[places], labels[places], threat.at(places)
        seeded = SeededGenerator([numbers[place] for place in places.tolist()])
        alone = attack(classifier, x, y, here, generator=seeded)
        both = search_unnoticed(
            fitted.judge,
            fitted.threshold,
            x,
            y,
            here,
            classes=len(classifier.classes),
            units=fitted.units,
            start=alone,
            generator=seeded,
        )
        # Asked afresh: only what the original says of a point within the set counts.
        for points, fools, score in ((alone, turned, after), (both, unnoticed, joint)):
            found = verify(classifier, points, x, y, here)
            with torch.no_grad():
                score[places] = fitted.judge(found.images).score
            fools[places] = found.fooled
    return _columns(fitted, trial, cohort, rows, plan) | {
        "attacked": attacked.tolist(),
        "score": before.double().tolist(),
        "turned": turned.tolist(),
        "score_attacked": after.double().tolist(),
        "turned_jointly": unnoticed.tolist(),
        "score_jointly": joint.double().tolist(),
    }


def _columns(
    fitted: Fitted, trial: Trial, cohort: Cohort, rows: Sequence[int], plan: Plan
) -> dict[str, Any]:
    cases, eps = [cohort.cases[row] for row in rows], trial.radii[0]
    alike = {
        "rate": plan.settings.false_alarms,
        "threshold": fitted.threshold,
        "calibrated_on": fitted.slices,
        "calibrated_patients": fitted.patients,
        "attack": trial.facts.name,
        "norm": trial.norm,
        "eps": eps.value,
        "eps_units": eps.units,
        "eps_image": float(trial.threat.eps),
        "target": plan.settings.target,
    }
    return {
        "case_id": [case.case_id for case in cases],
        "index": list(rows),
        "group": [case.group for case in cases],
        "label": [case.label for case in cases],
        **{name: [value] * len(cases) for name, value in alike.items()},
    }


def summarise_detection(columns: Outcomes) -> list[DetectorResult]:
    """Shares with intervals by patient, of each detector.

    Args:
        columns: as `run_detection` gives them; of several evaluations, each has its own threshold.
    """
    results = []
    for name in dict.fromkeys(columns["detector"].tolist()):
        rows = np.flatnonzero(columns["detector"] == name)
        of = {key: column[rows] for key, column in columns.items()}
        attacked = of["attacked"].astype(bool)
        if not attacked.any():
            continue
        groups, limit = of["group"].astype(str), of["threshold"].astype(float)

        def alarm(score: str, of: Any = of, limit: Any = limit) -> npt.NDArray[np.bool_]:
            # A score that is no number is an alarm.
            return np.asarray(~(of[score].astype(float) <= limit), dtype=bool)

        turned, jointly = of["turned"].astype(bool), of["turned_jointly"].astype(bool)
        fell = attacked & turned
        told = {key: of[key][0] for key in ("rate", "eps", "eps_image")}
        results.append(
            DetectorResult(
                detector=name,
                title=DETECTORS[name].title,
                paper=DETECTORS[name].paper,
                calibrated_on=int(of["calibrated_on"].min()),
                calibrated_patients=int(of["calibrated_patients"].min()),
                attack=str(of["attack"][0]),
                norm=str(of["norm"][0]),
                eps_units=cast(Any, str(of["eps_units"][0])),
                target=str(of["target"][0]),
                false_alarms=_share(alarm("score"), groups),
                turned=_share(turned[attacked], groups[attacked]),
                noticed=_share(alarm("score_attacked")[fell], groups[fell]) if fell.any() else None,
                unnoticed=_share((jointly & ~alarm("score_jointly"))[attacked], groups[attacked]),
                **{key: float(value) for key, value in told.items()},
            )
        )
    return results


def _share(holds: npt.NDArray[np.bool_], groups: npt.NDArray[np.str_]) -> Share:
    bounds = share_interval(holds, groups)
    return Share(
        share=float(np.mean(holds)),
        ci_low=bounds.low,
        ci_high=bounds.high,
        interval=bounds.method,
        n=len(holds),
        n_patients=len(np.unique(groups)),
    )
