"""f_theta: images in [0, 1] to logits. The only place that knows a mean and a standard deviation,
and what a network ends in.
"""

from __future__ import annotations

import copy
import math
from typing import Literal

import msgspec
import torch
from torch import Tensor, nn

from robustmri.core.arrays import Images, Logits
from robustmri.core.errors import SettingsError, ThreatModelError
from robustmri.core.sizes import sides

Format = Literal["backbone", "graph", "black-box"]
EndsIn = Literal["logits", "softmax", "sigmoid"]
Constant = float | tuple[float, float, float]
SMALLEST_PROBABILITY = 1e-30
"""Below it a probability has no logarithm that float32 would tell from its neighbours'."""
NEAREST_TO_CERTAIN = 1e-7


class ClassifierSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything needed to build the network again, apart from its weights.

    Attributes:
        backbone: name of the network; of an import that no library builds by name, the kind of its
            file.
        classes: names of the classes, in the order of the logits.
        size: height and width of the images in pixels, one number where they are equal.
        mean: what is subtracted from the images, in units of the [0, 1] range: a number, or one for
            each of three planes. ImageNet's, averaged where the slices are grey; some weights ask
            for others.
        std: what they are then divided by, likewise.
        weights: what it started from, in words.
        format: how the network is kept: built by its name, as a graph of known operators, or as a
            file that only answers.
        channels: planes that the network takes: 1 (grey) or 3 (colour); to three a grey slice is
            repeated.
        ends_in: what comes out of the network. Probabilities are turned into logits.
        one_logit: whether it has one output for two classes, the second class's.
        order: which output is which class's; empty where they are in the order of `classes`.
        gradients: whether attacks can climb it; else they can only ask.
        mirrored: whether it answers by the mean of the logits for a slice and for its mirror image;
            in training mode it does not.
        guessed: what its file did not say and was assumed at its import, in sentences.
    """

    backbone: str
    classes: tuple[str, ...]
    size: int | tuple[int, int]
    mean: Constant = 0.449
    std: Constant = 0.226
    weights: str = "none"
    format: Format = "backbone"
    channels: Literal[1, 3] = 1
    ends_in: EndsIn = "logits"
    one_logit: bool = False
    order: tuple[int, ...] = ()
    gradients: bool = True
    mirrored: bool = False
    guessed: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Planes, height and width of the images that the network takes.

        >>> ClassifierSpec(backbone="a", classes=("b",), size=(8, 16), channels=3).shape
        (3, 8, 16)
        """
        return self.channels, *sides(self.size)

    @property
    def grey_std(self) -> float:
        """The standard deviation as one number: of three planes the average.

        >>> ClassifierSpec(backbone="a", classes=("b",), size=8, std=(0.1, 0.2, 0.3)).grey_std
        0.2
        """
        if isinstance(self.std, tuple):
            return round(sum(self.std) / len(self.std), 6)
        return self.std


def fault_of(spec: ClassifierSpec) -> str:
    """What no classifier can be made of; "" where nothing is wrong.

    >>> fault_of(ClassifierSpec(backbone="a", classes=("ill", "well"), size=8, std=0.0))
    'expected a std above 0, got 0.0'
    """
    means, stds = (one if isinstance(one, tuple) else (one,) for one in (spec.mean, spec.std))
    n = len(spec.classes)
    if len(set(spec.classes)) < max(2, n):
        return f"expected two classes or more, each once, got {', '.join(spec.classes) or 'none'}"
    if not all(0 < std < math.inf for std in stds):
        return f"expected a std above 0, got {spec.std}"
    if not all(map(math.isfinite, means)):
        return f"expected a finite mean, got {spec.mean}"
    if min(sides(spec.size)) < 1:
        return f"expected a size of at least 1, got {spec.size}"
    if spec.order and sorted(spec.order) != list(range(n)):
        return f"expected each of {n} outputs once as their order, got {spec.order}"
    return ""


class Classifier(nn.Module):
    """A network with its normalisation inside, so that eps keeps its meaning in image units.

    Args:
        network: maps normalised images of shape (n, channels, h, w) to logits of shape
            (n, classes), or to what `spec.ends_in` names.
        spec: class names, image size, mean and standard deviation (in units of the [0, 1] range).

    Raises:
        SettingsError: no network, or a spec that no classifier can have.
    """

    _mean: float | Tensor
    _std: float | Tensor

    def __init__(self, network: nn.Module, spec: ClassifierSpec) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise SettingsError(f"expected the network as a torch.nn.Module, got {network!r:.80}.")
        if fault := fault_of(spec):
            raise SettingsError(f"this spec is of no classifier: {fault}.")
        self.network = network
        self.spec = spec
        for name, value in (("_mean", spec.mean), ("_std", spec.std)):
            if isinstance(value, tuple):
                # The spec keeps them; they are no weights.
                planes = torch.tensor(value).view(1, 3, 1, 1)
                self.register_buffer(name, planes, persistent=False)
            else:
                setattr(self, name, value)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.spec.classes

    def forward(self, images: Images) -> Logits:
        """Logits of images in [0, 1], shape (n, channels, h, w); those of one plane may be given to
        a network of three.

        Raises:
            ThreatModelError: no images, images of three planes for a network of one, or a network
                whose answers are no logits of these classes.
        """
        logits = self.outputs(images)
        columns = logits.shape[1]
        # In a trace it is no number.
        if isinstance(columns, int) and columns != len(self.classes):
            raise ThreatModelError(
                f"the network of {self.spec.backbone!r} has {columns} outputs, expected "
                f"one for each of its classes: {', '.join(self.classes)}."
            )
        return logits

    def outputs(self, images: Images) -> Logits:
        """The same, of a network of whatever number of classes."""
        if not isinstance(images, Tensor) or images.dim() < 3:
            kind = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise ThreatModelError(f"expected images (n, channels, height, width), got {kind}.")
        if self.spec.channels == 3:
            images = images.expand(-1, 3, -1, -1)
        elif images.shape[1] == 3:
            raise ThreatModelError(
                f"{self.spec.backbone} takes grey images of one plane, got three: shape "
                f"{tuple(images.shape)}. Average them first."
            )
        images = (images - self._mean) / self._std
        if not self.spec.mirrored or self.training:
            return as_logits(self.network(images), self.spec)
        # The slice last: who looks into the network keeps what was seen last.
        mirrored = as_logits(self.network(images.flip(-1)), self.spec)
        return (mirrored + as_logits(self.network(images), self.spec)) / 2

    def answering(self, *, mirrored: bool) -> Classifier:
        """The same network, with the same weights, asked about mirror images too, or not."""
        other = copy.copy(self)
        other.spec = msgspec.structs.replace(self.spec, mirrored=mirrored)
        return other


def device_of(network: nn.Module) -> torch.device:
    """Where its weights are; the CPU where it has none, as a black box.

    >>> device_of(nn.Flatten())
    device(type='cpu')
    """
    return next((one.device for one in network.parameters()), torch.device("cpu"))


def as_logits(outputs: Tensor, spec: ClassifierSpec) -> Logits:
    """Logits, a column for each class, of whatever a network gives.

    >>> spec = ClassifierSpec(
    ...     backbone="a", classes=("ill", "well"), size=8, ends_in="sigmoid", one_logit=True
    ... )
    >>> as_logits(torch.tensor([[0.5]]), spec)
    tensor([[0., 0.]])
    """
    if not isinstance(outputs, Tensor):
        raise ThreatModelError(
            f"the network of {spec.backbone!r} returns {type(outputs).__name__}, expected logits "
            "as a tensor. Wrap it in a module whose forward returns them alone."
        )
    if outputs.dim() != 2:
        outputs = outputs.reshape(len(outputs), -1)
    if spec.ends_in == "softmax":
        outputs = outputs.clamp_min(SMALLEST_PROBABILITY).log()
    elif spec.ends_in == "sigmoid":
        outputs = outputs.logit(eps=NEAREST_TO_CERTAIN)
    if spec.one_logit:
        outputs = torch.cat([torch.zeros_like(outputs), outputs], dim=1)
    return outputs[:, list(spec.order)] if spec.order else outputs
