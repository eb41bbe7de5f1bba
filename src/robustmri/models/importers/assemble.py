"""From a network that was found to a classifier: its normalisation, what it ends in, its classes
and their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor

from robustmri.core.arrays import Images
from robustmri.core.errors import CheckpointError, SettingsError
from robustmri.core.sizes import size_of
from robustmri.models.black_box import Asked, BlackBox
from robustmri.models.classifier import Classifier, ClassifierSpec, Constant, EndsIn
from robustmri.models.graph import GraphNetwork
from robustmri.models.importers.found import Found
from robustmri.models.stem import GREY_MEAN, GREY_STD, IMAGENET_MEAN, IMAGENET_STD, ThreePlanes

SUM_TOLERANCE = 1e-3
"""Of probabilities, in float32 and of up to a thousand classes."""


class Wishes(NamedTuple):
    """What the user says of the network; empty where the file, or a look at it, has to say it.

    Attributes:
        classes: their names in the order of the outputs.
        mean: what the images are normalised with, one number or three.
        std: likewise.
        ends_in: what comes out of the network.
    """

    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    ends_in: EndsIn | None = None


def assemble(
    found: Found,
    images: Images,
    wishes: Wishes,
    *,
    name: str,
    cohort_classes: Sequence[str] = (),
    weights: str = "none",
) -> tuple[Classifier, list[str]]:
    """The classifier, in evaluation mode, and what was done to the network, in sentences.

    Args:
        found: the network, and what its file says.
        images: a few, in [0, 1], of the size that the classifier will have; what the network ends
            in is seen on them.
        wishes: of the user, who knows better than the file.
        name: of the file, for messages.
        cohort_classes: of the cohort that it will meet; its outputs are put in their order.
        weights: what it started from, in words.

    Raises:
        CheckpointError: outputs that are not numbers, or not what `ends_in` says.
        SettingsError: class names are missing, or do not fit.
    """
    found, guessed, notes = _normalised(found, wishes, name)
    spec = ClassifierSpec(
        backbone=found.backbone,
        classes=("not", "known yet"),
        size=size_of(*images.shape[-2:]),
        mean=GREY_MEAN if found.mean is None else found.mean,
        std=GREY_STD if found.std is None else found.std,
        weights=weights,
        format=found.format,
        channels=found.channels,
    )
    network = found.network
    with torch.no_grad():
        outputs = Classifier(network, spec).eval().outputs(images)
    if not bool(outputs.isfinite().all()):
        raise CheckpointError(f"{name} gives outputs that are not finite numbers.")
    ends_in, assumed = _end_of(found, outputs, wishes.ends_in or found.ends_in, name)
    guessed += assumed
    if ends_in != "logits":
        bare = _without_end(network, ends_in)
        done = "turned into logits" if bare is None else "taken off"
        notes.append(f"It ends in {ends_in}, which was {done}.")
        network, ends_in = (network, ends_in) if bare is None else (bare, "logits")
    names = wishes.classes or found.classes
    names, order, assumed = _ordered(names, outputs.shape[1], tuple(cohort_classes))
    guessed += assumed
    if order:
        notes.append("Its outputs were put in the order of the cohort's classes.")
    spec = msgspec.structs.replace(
        spec,
        classes=names,
        order=order,
        ends_in=ends_in,
        one_logit=outputs.shape[1] == 1,
        guessed=tuple(guessed),
    )
    if isinstance(network, Asked):
        return BlackBox(network.answer, spec).eval(), notes
    return Classifier(network, spec).eval(), notes


def _normalised(found: Found, wishes: Wishes, name: str) -> tuple[Found, list[str], list[str]]:
    """What was found with its mean and standard deviation, what was guessed, and what was done."""
    guessed = list(found.guessed)
    notes: list[str] = []
    if bool(wishes.mean) != bool(wishes.std):
        raise SettingsError("--mean and --std belong together: give both.")
    given = (wishes.mean, wishes.std)
    if any(len(values) not in (0, 1, 3) for values in given) or 0.0 in wishes.std:
        raise SettingsError(
            f"--mean and --std are one number or three, no std 0; got {given[0]} and {given[1]}."
        )
    if wishes.mean and isinstance(found.network, ThreePlanes):
        mean, std = ((*values, *values, *values)[:3] for values in given)
        network = ThreePlanes(found.network.model, mean, std).eval()
        return replace(found, network=network), guessed, notes
    if wishes.mean:
        pair = [_constant(values, found, name) for values in given]
        return replace(found, mean=pair[0], std=pair[1]), guessed, notes
    if isinstance(found.network, ThreePlanes):
        guessed.append(
            f"Mean and standard deviation are those that {found.backbone} was published with, or "
            "ImageNet's: the file does not say. --mean and --std set others."
        )
        return found, guessed, notes
    if found.mean is not None and found.std is not None:
        return found, guessed, notes
    guessed.append(
        "Mean and standard deviation are ImageNet's"
        + (", averaged" if found.channels == 1 else "")
        + ": the file does not say. --mean and --std set others."
    )
    if found.channels == 1:
        return replace(found, mean=GREY_MEAN, std=GREY_STD), guessed, notes
    return replace(found, mean=IMAGENET_MEAN, std=IMAGENET_STD), guessed, notes


def _constant(values: tuple[float, ...], found: Found, name: str) -> Constant:
    if len(values) == 1:
        return values[0]
    if found.channels == 1:
        raise SettingsError(
            f"{name} takes one plane: --mean and --std are one number each, got {len(values)}."
        )
    return values[0], values[1], values[2]


def _end_of(
    found: Found, outputs: Tensor, said: EndsIn | None, name: str
) -> tuple[EndsIn, list[str]]:
    """What the network ends in, and what of it is a guess."""
    columns = outputs.shape[1]
    inside = bool(((outputs >= 0) & (outputs <= 1)).all())
    sums = columns > 1 and bool(((outputs.sum(1) - 1).abs() <= SUM_TOLERANCE).all())
    low, high = float(outputs.min()), float(outputs.max())
    if said == "softmax" and not (inside and sums):
        raise CheckpointError(
            f"{name} was said to end in softmax, but its rows are no probabilities that "
            f"sum to one: they span [{low:.3g}, {high:.3g}]. Give --ends-in logits."
        )
    if said == "sigmoid" and not inside:
        raise CheckpointError(
            f"{name} was said to end in a sigmoid, but its outputs span [{low:.3g}, "
            f"{high:.3g}]. Give --ends-in logits."
        )
    if said:
        return said, []
    if inside and sums:
        return "softmax", []
    graph = found.network.graph if isinstance(found.network, GraphNetwork) else None
    if graph is not None and graph.without_last("Sigmoid") is not None:
        return "sigmoid", []
    if inside and graph is None:
        return "sigmoid", [
            f"It ends in a sigmoid: its outputs lie in [{low:.3g}, {high:.3g}]. --ends-in says "
            "otherwise."
        ]
    return "logits", []


def _without_end(network: torch.nn.Module, ends_in: EndsIn) -> GraphNetwork | None:
    """The graph without its last operator, where that is what it ends in."""
    if not isinstance(network, GraphNetwork):
        return None
    bare = network.graph.without_last(ends_in.capitalize())
    return None if bare is None else GraphNetwork(bare, network.tensors()).eval()


def _ordered(
    names: tuple[str, ...], outputs: int, cohort: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[int, ...], list[str]]:
    """Class names in the cohort's order, which output is whose, and what of it is a guess."""
    needed = 2 if outputs == 1 else outputs
    ask = f" The cohort's are, in its own order: {', '.join(cohort)}." if cohort else ""
    if not names:
        which = "(for one output: the other class first)" if outputs == 1 else ""
        raise SettingsError(
            f"The file does not name its {needed} classes. Give --classes in the order of the "
            f"network's outputs{' ' + which if which else ''}.{ask}"
        )
    if len(names) != needed or len(set(names)) != needed:
        raise SettingsError(
            f"The network tells apart {needed} classes; got {len(set(names))} names: "
            f"{', '.join(names)}.{ask}"
        )
    if not cohort or names == cohort:
        return names, (), []
    spelled = {name.casefold(): name for name in cohort}
    same = tuple(spelled.get(name.casefold(), name) for name in names)
    if sorted(same) != sorted(cohort):
        raise SettingsError(
            f"The network's classes are {', '.join(names)}; the cohort's are {', '.join(cohort)}. "
            "Give --classes in the order of the network's outputs, with the cohort's names."
        )
    order = () if same == cohort else tuple(same.index(name) for name in cohort)
    guessed = [] if same == names else ["Class names that differ in capitals alone are the same."]
    return cohort, order, guessed
