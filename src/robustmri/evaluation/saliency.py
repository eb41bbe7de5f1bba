"""Where a classifier looks: integrated gradients and Grad-CAM, how much of them lies in the lesion,
and whether they would look the same had the network learnt nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from robustmri.core.arrays import Images, Labels, PerImage
from robustmri.core.errors import DataError, SettingsError
from robustmri.core.files import atomic_file
from robustmri.data.cohort import Cohort
from robustmri.data.loaders import load_images, load_masks
from robustmri.evaluation.exact import logits_of
from robustmri.evaluation.intervals import mean_interval
from robustmri.evaluation.plan import Plan, spread_evenly
from robustmri.evaluation.shards import divide
from robustmri.evaluation.visibility import share_in
from robustmri.models.classifier import Classifier, device_of
from robustmri.results.outcomes import Outcomes, table_of
from robustmri.results.schema import Example, SaliencyResult

if TYPE_CHECKING:
    import pyarrow as pa

STEPS = 32
"""Points on the way from black to the slice."""
AT_ONCE = 8
COARSEST = 4
"""Side of the smallest map that still says where: small slices end in 2 x 2."""
NUMBERS = ("in_lesion", "chance", "in_lesion_shuffled", "likeness")


class Method(NamedTuple):
    """A way to attribute an answer to pixels: (classifier, images, classes) to maps, at least 0, of
    shape (n, 1, h, w); None where the network has no layer for it.
    """

    title: str
    paper: str
    attribute: Callable[[nn.Module, Images, Labels], Images | None]


def integrated_gradients(classifier: nn.Module, images: Images, classes: Labels) -> Images:
    """What each pixel adds to the logit of the class on the way from a black slice; its parts sum
    to the difference of that logit.

    Reference: Sundararajan et al. 2017, Eq. 3, by the midpoint rule.
    """
    total = torch.zeros_like(images)
    for step in range(STEPS):
        points = (images * ((step + 0.5) / STEPS)).detach().requires_grad_(True)
        with torch.enable_grad():
            logit = classifier(points).gather(1, classes[:, None]).sum()
        total += torch.autograd.grad(logit, points)[0]
    return images * total / STEPS


def grad_cam(classifier: nn.Module, images: Images, classes: Labels) -> Images | None:
    """Channels of the last convolution that still has a map of 4 x 4, each weighted by the mean
    gradient of the class's logit, what is positive, enlarged to the slice; None where there is at
    most one convolution.

    Reference: Selvaraju et al. 2017, Eq. 1 and 2.
    """
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.dim() == 4 and min(output.shape[-2:]) >= COARSEST:
            seen.append(output)

    hooks = [
        module.register_forward_hook(keep)
        for module in classifier.modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        points = images.detach().requires_grad_(True)
        with torch.enable_grad():
            logit = classifier(points).gather(1, classes[:, None]).sum()
    finally:
        for hook in hooks:
            hook.remove()
    if len(seen) < 2:
        return None
    (gradient,) = torch.autograd.grad(logit, seen[-1])
    coarse = (gradient.mean((2, 3), keepdim=True) * seen[-1].detach()).sum(1, keepdim=True).relu()
    return nn.functional.interpolate(coarse, images.shape[-2:], mode="bilinear")


METHODS = {
    "integrated-gradients": Method(
        "Integrated gradients",
        "Sundararajan et al. 2017",
        lambda *asked: integrated_gradients(*asked).abs(),
    ),
    "grad-cam": Method("Grad-CAM", "Selvaraju et al. 2017", grad_cam),
}


def shuffled(classifier: Classifier, seed: int) -> Classifier:
    """A copy that has learnt nothing: the numbers of every weight in another order.

    Reference: Adebayo et al. 2018, Sec. 3.2, for the randomised model; shuffled weights keep their
    distribution.
    """
    other, generator = copy.deepcopy(classifier), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))
    return other.eval()


def rank_correlation(maps: Tensor, others: Tensor) -> PerImage:
    """Spearman's correlation of each pair of maps, shape (n,); NaN where one is the same
    everywhere. Equal values share the mean of their ranks: most of a map may be 0.

    >>> one, other = torch.tensor([[3.0, 1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    >>> rank_correlation(one, other).round(decimals=4).tolist()
    [-0.9428]
    """

    def ranks(one: Tensor) -> Tensor:
        _, places, counts = one.unique(return_inverse=True, return_counts=True)
        last = counts.cumsum(0).double()
        shared: Tensor = last - (counts - 1) / 2
        return shared[places]

    pairs = zip(maps.flatten(1), others.flatten(1), strict=True)
    return torch.stack([torch.corrcoef(torch.stack([*map(ranks, pair)]))[0, 1] for pair in pairs])


def check_explainable(classifier: Classifier, cohort: Cohort, plan: Plan) -> None:
    """Refuse what saliency cannot be measured of.

    Raises:
        SettingsError: the classifier only answers.
        DataError: no slice has an outlined lesion.
    """
    if not plan.settings.saliency:
        return
    if not classifier.spec.gradients:
        raise SettingsError(
            f"{classifier.spec.backbone} only answers, it offers no gradient, so it cannot be said "
            "where it looks. Leave --saliency out."
        )
    if not any(cohort.cases[row].lesion_box for row in plan.trials[0].rows):
        raise DataError(
            "saliency is measured against the outline of the lesion, and no slice has one. Leave "
            "--saliency out, or prepare a source that brings outlines."
        )


def explain_slices(classifier: Classifier, cohort: Cohort, plan: Plan) -> pa.Table:
    """A row for each method and outlined slice: how much of its map lies in the lesion, and how
    alike the map of a network with shuffled weights is.
    """

    settings = plan.settings
    outlined = [row for row in plan.trials[0].rows if cohort.cases[row].lesion_box]
    other = shuffled(classifier, settings.seed)
    device = device_of(classifier)
    columns: dict[str, list[object]] = {
        name: [] for name in ("case_id", "index", "group", "label", "method", *NUMBERS)
    }
    for rows in divide(spread_evenly(outlined, settings.saliency), AT_ONCE):
        images, masks = load_images(cohort, rows).to(device), load_masks(cohort, rows)
        if masks is None:
            continue
        answers = logits_of(classifier, images).argmax(1)
        for name, method in METHODS.items():
            maps, blank = (method.attribute(one, images, answers) for one in (classifier, other))
            if maps is None or blank is None:
                continue
            maps, blank = maps.cpu(), blank.cpu()
            inside, area = share_in(maps, masks)
            inside_blank, _ = share_in(blank, masks)
            cases = [cohort.cases[row] for row in rows]
            columns["case_id"] += [case.case_id for case in cases]
            columns["index"] += list(rows)
            columns["group"] += [case.group for case in cases]
            columns["label"] += [case.label for case in cases]
            columns["method"] += [name] * len(rows)
            columns["in_lesion"] += inside.tolist()
            columns["chance"] += area.tolist()
            columns["in_lesion_shuffled"] += inside_blank.tolist()
            columns["likeness"] += rank_correlation(maps, blank).tolist()
    return table_of(columns)


def summarise_saliency(columns: Outcomes) -> list[SaliencyResult]:
    """Means over slices with intervals by patient; slices whose map is empty are left out. Where
    that of the shuffled network is, it has nothing in the lesion and no likeness: both count as 0.
    """
    results = []
    for name in dict.fromkeys(columns["method"].tolist()):
        of = (columns["method"] == name) & np.isfinite(columns["in_lesion"].astype(float))
        if not of.any():
            continue
        numbers = {key: columns[key][of].astype(float) for key in NUMBERS}
        groups = columns["group"][of].astype(str)
        bounds = mean_interval(numbers["in_lesion"], groups)
        results.append(
            SaliencyResult(
                method=name,
                title=METHODS[name].title,
                paper=METHODS[name].paper,
                n=int(of.sum()),
                n_patients=len(np.unique(groups)),
                in_lesion=float(numbers["in_lesion"].mean()),
                ci_low=bounds.low,
                ci_high=min(1.0, bounds.high),  # It is a share.
                interval=bounds.method,
                chance=float(numbers["chance"].mean()),
                in_lesion_shuffled=float(np.nan_to_num(numbers["in_lesion_shuffled"]).mean()),
                likeness=float(np.nan_to_num(numbers["likeness"]).mean()),
            )
        )
    return results


def write_maps(
    classifier: Classifier, cohort: Cohort, examples: list[Example], folder: Path
) -> None:
    """Write `folder`/saliency.npz: by method a map for each example, by its position, 0 to 255."""
    if not examples:
        return
    index = {case.case_id: case.index for case in cohort.cases}
    rows = [index[one.case_id] for one in sorted(examples, key=lambda one: one.position)]
    device = device_of(classifier)
    images = load_images(cohort, rows).to(device)
    answers = logits_of(classifier, images).argmax(1)
    arrays: dict[str, Any] = {}
    for name, method in METHODS.items():
        maps = method.attribute(classifier, images, answers)
        if maps is not None:
            # The brightest hundredth alike: a single pixel would leave the rest black.
            most = maps.flatten(1).quantile(0.99, dim=1).clamp_min(1e-12)
            scaled = (maps.mean(1) / most[:, None, None]).clamp(0, 1) * 255
            arrays[name] = scaled.round().byte().cpu().numpy()
    with atomic_file(folder / "saliency.npz") as partial, open(partial, "wb") as stream:
        np.savez_compressed(stream, **arrays)
