"""The poster's picture for a few slices of each class: slice, sign of the gradient, attacked
slice.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from robustmri.models.classifier import Classifier, device_of
from robustmri.results.schema import Example


def write_examples(
    classifier: Classifier, cohort: Cohort, plan: Plan, folder: Path
) -> list[Example]:
    """Write `folder`/examples.npz and return what its rows show.

    The slices are those named in the settings. Else, of each class, the first in a seeded order
    that are classified rightly, those that the attack fools before the others. The attack is FGSM
    where it is among the settings' attacks, at the first eps, so that the picture is the equation:
    x + eps * sign(gradient).
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
    rows = named_slices(cohort, settings) or _candidates(cohort, trial.rows, settings)
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
    right = clean.argmax(1) == labels
    if settings.examples:
        chosen = list(range(len(rows)))
    else:
        order = sorted(range(len(rows)), key=lambda k: (not right[k], not attacked.fooled[k]))
        of_class = {
            name: [k for k in order if cohort.cases[rows[k]].label == name]
            for name in cohort.classes
        }
        chosen = [
            k for ks in of_class.values() for k in ks[: settings.examples_per_class] if right[k]
        ]
    before, after = probabilities(clean), probabilities(attacked.logits)
    # A confidence that is no number would not come back from the result file.
    chosen = [k for k in chosen if bool(torch.isfinite(before[k] + after[k]).all())]
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


def _candidates(cohort: Cohort, slices: Sequence[int], settings: EvaluateSettings) -> list[int]:
    rows = np.random.default_rng(settings.seed).permutation(slices).tolist()
    of_class = {
        name: [row for row in rows if cohort.cases[row].label == name] for name in cohort.classes
    }
    return [
        row for name in cohort.classes for row in of_class[name][: 8 * settings.examples_per_class]
    ]
