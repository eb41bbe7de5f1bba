"""The poster's picture for a few slices of each class: slice, sign of the gradient, attacked
slice.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from robustmri.core.errors import DataError
from robustmri.core.files import atomic_file
from robustmri.data.cohort import Cohort
from robustmri.data.loaders import load_images, load_labels, load_masks, planes_last
from robustmri.data.regions import check_region
from robustmri.evaluation.attacked import attack_batch, loss_gradient, probabilities, verify
from robustmri.evaluation.exact import logits_of
from robustmri.evaluation.plan import Plan
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.evaluation.trial import Trial
from robustmri.models.classifier import Classifier, device_of
from robustmri.results.outcomes import Outcomes
from robustmri.results.schema import Example


def write_examples(
    classifier: Classifier,
    cohort: Cohort,
    plan: Plan,
    outcomes: Outcomes,
    folder: Path,
) -> list[Example]:
    """Write `folder`/examples.npz and return what its rows show.

    The slices are those named in the settings. Else, of each class, the first in a seeded order
    that were classified rightly, those that the attack fooled before the others. They are attacked
    once more, by FGSM where it is among the settings' attacks, at the first eps, so that the
    picture is the equation: x + eps * sign(gradient).
    """
    settings = plan.settings
    trial = next((one for one in plan.attacks if one.facts.name == "fgsm"), plan.attacks[0])
    if (
        trial.eps is None
        or trial.attack is None
        or trial.corruption
        or not settings.examples_per_class
    ):
        return []
    rows = named_slices(cohort, settings) or _fooled_first(cohort, trial, outcomes, settings)
    if not rows:
        return []
    device = device_of(classifier)
    images, labels = load_images(cohort, rows).to(device), load_labels(cohort, rows).to(device)
    threat = plan.confine(trial.threat, cohort, rows, device)
    clean = logits_of(classifier, images)
    generator = torch.Generator().manual_seed(settings.seed)
    if trial.physical:
        attacked = attack_batch(
            trial.attack,
            classifier,
            classifier,
            images,
            labels,
            trial.physical,
            generator=generator,
        )
    else:
        points = trial.attack(classifier, images, labels, threat, generator=generator)
        attacked = verify(classifier, points, images, labels, threat)
    before, after = probabilities(clean), probabilities(attacked.logits)
    # A confidence that is no number would not come back from the result file.
    finite = torch.isfinite(before + after).all(1).tolist()
    chosen = [k for k in range(len(rows)) if finite[k]]
    masks = load_masks(cohort, rows)
    picked = torch.tensor(chosen, dtype=torch.long)
    # Of the gradient itself: of the change it would be zero wherever the bounds stop a pixel.
    signs = torch.zeros_like(images, dtype=torch.int8)
    if classifier.spec.gradients:
        signs = threat.allow(loss_gradient(classifier, images, labels, threat)).sign().to(signs)
    with atomic_file(folder / "examples.npz") as partial, open(partial, "wb") as stream:
        np.savez_compressed(
            stream,
            clean=np.round(planes_last(images[picked]).cpu().numpy() * 65535).astype(np.uint16),
            attacked=planes_last(attacked.images[picked]).cpu().numpy(),
            sign=planes_last(signs[picked]).cpu().numpy(),
            mask=np.zeros((len(chosen), *cohort.shape[1:]), bool)
            if masks is None
            else masks[picked, 0].numpy(),
        )
    return [
        Example(
            case_id=cohort.cases[rows[k]].case_id,
            patient_id=cohort.cases[rows[k]].patient_id,
            label=cohort.cases[rows[k]].label,
            clean_prediction=classifier.classes[int(clean[k].argmax())],
            clean_confidence=float(before[k].max()),
            attack=trial.facts.name,
            norm=trial.norm,
            eps=trial.eps.value,
            eps_units=trial.eps.units,
            prediction=classifier.classes[int(attacked.logits[k].argmax())],
            confidence=float(after[k].max()),
            distance_linf=float(attacked.distance("linf")[k]),
            position=position,
        )
        for position, k in enumerate(chosen)
    ]


def named_slices(cohort: Cohort, settings: EvaluateSettings) -> list[int]:
    """The slices that the settings ask for.

    Raises:
        DataError: the cohort has no such case, or not the region in it.
    """
    index = {case.case_id: case.index for case in cohort.cases}
    unknown = [case_id for case_id in settings.examples if case_id not in index]
    if unknown:
        raise DataError(f"the cohort has no case {unknown[0]!r}, asked for as an example.")
    rows = [index[case_id] for case_id in settings.examples]
    check_region(cohort, rows, settings.region)
    return rows


def _fooled_first(
    cohort: Cohort,
    trial: Trial,
    outcomes: Outcomes,
    settings: EvaluateSettings,
) -> list[int]:
    own = outcomes["clean_prediction"] == outcomes["label"]
    own &= (outcomes["attack"] == trial.facts.name) & (outcomes["norm"] == trial.norm)
    if trial.eps is not None:
        own &= outcomes["eps"] == trial.eps.value
        own &= outcomes["eps_units"] == trial.eps.units
    fooled = dict(zip(outcomes["index"][own].tolist(), outcomes["fooled"][own], strict=True))
    rows = np.random.default_rng(settings.seed).permutation(trial.rows).tolist()
    order = sorted((row for row in rows if row in fooled), key=lambda row: not fooled[row])
    of_class = {
        name: [row for row in order if cohort.cases[row].label == name] for name in cohort.classes
    }
    return [row for rows in of_class.values() for row in rows[: settings.examples_per_class]]
