"""What a classifier that was imported does on a few slices: whether it is right, answers the same
each time, and lets itself be climbed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from robustmri.core.arrays import Images, Labels
from robustmri.models.checkpoint import ModelCheck
from robustmri.models.classifier import Classifier
from robustmri.models.importers.assemble import SUM_TOLERANCE

CLEARLY = 0.25
"""By how much more slices must be right for another order of the classes to be the likely one."""
SAME = 1e-4
"""Of the largest logit: what float32 may lose where a batch of another size is summed otherwise."""
GRADIENT = "gradient there to climb"


def check_model(
    classifier: Classifier, images: Images, labels: Labels | None = None
) -> list[ModelCheck]:
    """Every check, on `images` in [0, 1]; without labels accuracy is left out."""
    with torch.no_grad():
        logits = classifier(images)
    checks = [] if labels is None else [check_order(logits, labels, classifier.classes)]
    checks += [
        check_outputs(classifier, logits),
        check_repeats(classifier, images, logits),
        check_alone(classifier, images, logits),
        check_modes(classifier, images, logits),
        check_gradient(classifier, images),
    ]
    return checks


def check_order(logits: Tensor, labels: Labels, classes: Sequence[str]) -> ModelCheck:
    """Accuracy, and whether another order of the classes would give a much better one."""
    from scipy.optimize import linear_sum_assignment

    count = len(classes)
    confusion = np.zeros((count, count), dtype=int)
    np.add.at(confusion, (labels.numpy(), logits.argmax(1).numpy()), 1)
    total, right = int(confusion.sum()), int(np.trace(confusion))
    _, best = linear_sum_assignment(-confusion)
    reordered = int(confusion[np.arange(count), best].sum())
    told = "; ".join(
        f"{name}: "
        + ", ".join(f"{confusion[row, k]} {classes[k]}" for k in range(count) if confusion[row, k])
        for row, name in enumerate(classes)
        if confusion[row].any()
    )
    detail = f"{right} of {total} slices right. True class: answers. {told}."
    commonest = int(confusion.sum(1).max())
    if reordered - right >= CLEARLY * total:
        # Output k answers the class that `best` gives it to.
        owner = {int(answer): classes[row] for row, answer in enumerate(best)}
        named = ", ".join(owner[k] for k in range(count))
        return ModelCheck(
            "right on labelled slices",
            "fail",
            f"{detail} {reordered} would be if the classes stood in another order, so that what is "
            f"now called {', '.join(classes)} were {named}: look at --classes.",
        )
    weak = right <= commonest
    more = f" One answer to all would be right on {commonest}: look at --mean, --std, --size."
    return ModelCheck(
        "right on labelled slices", "warn" if weak else "pass", detail + (more if weak else "")
    )


def check_outputs(classifier: Classifier, logits: Tensor) -> ModelCheck:
    """The range of the logits; rows that sum to one would be probabilities."""
    spec = classifier.spec
    low, high = float(logits.min()), float(logits.max())
    sums = bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() <= SUM_TOLERANCE).all())
    detail = f"Logits span [{low:.3g}, {high:.3g}] on {len(logits)} images."
    if spec.ends_in != "logits":
        detail += f" They are made from what the network ends in, {spec.ends_in}."
    if sums:
        return ModelCheck(
            "logits, not probabilities",
            "warn",
            f"{detail} Each row sums to one, as probabilities do: give --ends-in softmax.",
        )
    return ModelCheck("logits, not probabilities", "pass", detail)


def check_repeats(classifier: Classifier, images: Images, logits: Tensor) -> ModelCheck:
    """The same images get the same answer twice."""
    return _same(
        "same answer twice",
        lambda: classifier(images),
        logits,
        "Something in it is drawn anew each time; a success could not be confirmed.",
    )


def check_alone(classifier: Classifier, images: Images, logits: Tensor) -> ModelCheck:
    """An image gets the same answer alone and among others."""
    few = images[:4]
    return _same(
        "same answer alone and in a batch",
        lambda: torch.cat([classifier(few[k : k + 1]) for k in range(len(few))]),
        logits[: len(few)],
        "Its answers depend on the other images in the batch, as those of a batch-norm in training "
        "mode do. Export it in evaluation mode.",
    )


def check_modes(classifier: Classifier, images: Images, logits: Tensor) -> ModelCheck:
    """Asked in evaluation mode it learns nothing, also after it was in training mode."""

    def ask() -> Tensor:
        classifier.train()
        answers: Tensor = classifier.eval()(images)
        return answers

    return _same(
        "answers leave it as it was", ask, logits, "It goes on changing in evaluation mode."
    )


def check_gradient(classifier: Classifier, images: Images) -> ModelCheck:
    """How the logits change with the image is known, finite, and not nothing."""
    if not classifier.spec.gradients:
        return ModelCheck(
            GRADIENT, "warn", "It only answers: attacks by queries alone can be run on it."
        )
    points = images.detach().clone().requires_grad_(True)
    fault = "It has no gradient with respect to the image"
    try:
        best = classifier(points).topk(2, dim=1).values
        (gradient,) = torch.autograd.grad((best[:, 0] - best[:, 1]).sum(), points)
    except RuntimeError:
        return ModelCheck(GRADIENT, "fail", f"{fault}: it counts as a black box.")
    gradient = gradient.flatten(1)
    if not bool(gradient.isfinite().all()):
        return ModelCheck(GRADIENT, "fail", "Its gradient is not finite: it counts as a black box.")
    zero = int((gradient == 0).all(1).sum())
    detail = f"{zero} of {len(gradient)} images have a gradient of exactly 0."
    if zero == len(gradient):
        return ModelCheck(GRADIENT, "fail", f"{detail} It counts as a black box.")
    return ModelCheck(GRADIENT, "warn" if zero else "pass", detail)


def _same(name: str, ask: Callable[[], Tensor], expected: Tensor, fault: str) -> ModelCheck:
    with torch.no_grad():
        difference = float((ask() - expected).abs().max())
    largest = float(expected.abs().max())
    if difference <= SAME * max(largest, 1e-6):
        return ModelCheck(name, "pass", f"Logits differ by at most {difference:.1e}.")
    return ModelCheck(name, "fail", f"Logits differ by up to {difference:.3g}. {fault}")
