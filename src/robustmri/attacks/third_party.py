"""Attacks of torchattacks and foolbox as attacks of ours: the same call, the same threat, verified
like any other.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustmri.attacks.engine import draw_seeds, exhausted, frozen
from robustmri.attacks.protocol import CheckedAttack, Facts, Predictor, logits_in
from robustmri.core.arrays import Images, Labels, Logits
from robustmri.core.errors import SettingsError, ThreatModelError, did_you_mean
from robustmri.threat.norms import per_image
from robustmri.threat.threat_model import ThreatModel

LIBRARIES = ("torchattacks", "foolbox")
NORMS = ("linf", "l2", "l1", "l0")
RADII = ("eps", "max_epsilon")
OURS = (*RADII, "model", "norm", "seed", "n_classes")
"""Arguments of a library's attack that the threat and the generator decide."""
KNOWN_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


LEAST_CLASSES = {
    "torchattacks:APGDT": (4, "apgd-t"),
    "torchattacks:AutoAttack": (4, "standard"),
}
"""Attacks whose loss compares so many logits, and the one of ours that does with two."""


@dataclass(frozen=True)
class ThirdParty(CheckedAttack):
    """An attack of another library. Radius, norm, bounds and target are the threat's; the rest are
    its own settings.

    Its random numbers are torch's and numpy's global ones, seeded from the generator for the call
    and put back after it; so a batch need not give what its images give one by one. What it returns
    is passed on as it is: whether it stayed in S(x) is for an evaluation to verify. Its loop cannot
    be asked for what it has so far: where a budget of time or of queries is spent before it ends,
    it is broken off, and all images of the batch stay as they were.

    Args:
        library: "torchattacks" or "foolbox".
        name: class of the attack there.
        settings: arguments of that class, in place of its defaults.
    """

    library: str
    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        known = {word: default for word, default in self._arguments.items() if word not in OURS}
        for setting in self.settings:
            if setting in OURS:
                raise SettingsError(
                    f"Attack {self.title!r} takes {setting!r} from the threat, not from its "
                    "settings."
                )
            if setting not in known:
                raise SettingsError(
                    f"Attack {self.title!r} has no setting {setting!r}. "
                    f"{did_you_mean(setting, known)}"
                )
        lacking = {
            word for word, default in known.items() if default is inspect.Parameter.empty
        } - {*self.settings}
        if lacking:
            raise SettingsError(
                f"Attack {self.title!r} has no default for {', '.join(sorted(lacking))}. Set it."
            )

    @property
    def title(self) -> str:
        """Its name on the command line."""
        return f"{self.library}:{self.name}"

    @property
    def minimal(self) -> bool:
        """Whether it has no radius."""
        if self.library == "foolbox":
            return not issubclass(self._kind, _load("foolbox").attacks.base.FixedEpsilonAttack)
        return not set(RADII) & set(self._arguments)

    @property
    def norms(self) -> tuple[str, ...]:
        """Norms that it measures in, as far as the library says."""
        if self.library == "foolbox":
            power = getattr(getattr(self._kind, "distance", None), "p", None)
            return NORMS if power is None else ({np.inf: "linf", 2: "l2", 1: "l1", 0: "l0"}[power],)
        if "norm" in self._arguments:
            return ("linf", "l2", "l1")
        return NORMS if self.minimal else ("l2",) if self.name.endswith("L2") else ("linf",)

    def refuse_classes(self, classes: int, *, targeted: bool = False) -> None:
        """Refuse a classifier with fewer classes than the attack compares.

        Raises:
            SettingsError: names the attack of ours that does with two.
        """
        least, ours = LEAST_CLASSES.get(self.title, (2, ""))
        if self.name in ("APGD", "UPGD") and str(self.settings.get("loss")).lower() == "dlr":
            least, ours = 3, "apgd"
        if self.title == "torchattacks:JSMA" and not targeted:
            least, ours = 10, "a target or our pgd-l0"
        if classes < least:
            raise SettingsError(
                f"{self.title} needs at least {least} classes, and there are {classes}. Use {ours}."
            )

    @property
    def _kind(self) -> Any:
        return _find_class(self.library, self.name)

    @property
    def _arguments(self) -> dict[str, Any]:
        words = inspect.signature(self._kind).parameters.values()
        return {word.name: word.default for word in words if word.kind is not word.VAR_KEYWORD}

    @property
    def facts(self) -> Facts:  # type: ignore[override]
        """What the library says of it."""
        return Facts(self.title, self.title, self.library, norms=self.norms, minimal=self.minimal)

    def search(
        self,
        classifier: Predictor,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator,
    ) -> Images:
        """See `Attack`.

        Raises:
            ThreatModelError: a mask, or a radius for each image, which libraries cannot keep to; or
                the attack failed.
        """
        if self.title in LEAST_CLASSES or self.name == "JSMA" or "loss" in self.settings:
            with frozen(classifier), torch.no_grad():
                classes = logits_in(classifier(images[:1]), 1).shape[-1]
            self.refuse_classes(classes, targeted=threat.target is not None)
        seeds = draw_seeds(generator, len(images), each=1)
        run = self._run_foolbox if self.library == "foolbox" else self._run_torchattacks
        aims = labels if threat.target is None else torch.full_like(labels, threat.target)
        with (
            frozen(classifier),
            _seeded(seeds[0][0]),
            torch.enable_grad(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            try:
                found = run(
                    Opaque(classifier, images).eval(), images.clone(), aims, threat, seeds[0][0]
                )
            except SpentError:
                return images.clone()
            except KNOWN_FAILURES as error:
                raise ThreatModelError(
                    f"{self.title} failed: {type(error).__name__}: {error}."
                ) from error
        points = found.detach().to(images)
        if not self.minimal:
            return points
        with frozen(classifier), torch.no_grad():
            fooled = threat.fooled(logits_in(classifier(points), len(points)), labels)
        return torch.where(per_image(fooled, images), points, images)

    def check(self, images: Images, labels: Labels, threat: ThreatModel) -> ThreatModel:
        """As every attack does; and what libraries cannot keep to is refused.

        Raises:
            ThreatModelError: a mask, a radius for each image, or other bounds than (0, 1).
        """
        if threat.mask is not None:
            raise ThreatModelError(
                f"{self.title} cannot leave pixels alone: it knows no mask and no region. Use ours."
            )
        if isinstance(threat.eps, Tensor) and threat.eps.dim():
            raise ThreatModelError(
                f"{self.title} knows one radius for all images, got one for each."
            )
        if self.library == "torchattacks" and threat.bounds != (0.0, 1.0):
            raise ThreatModelError(
                f"{self.title} knows no other bounds than (0, 1), got {threat.bounds}."
            )
        return super().check(images, labels, threat)

    def _run_torchattacks(
        self, network: nn.Module, images: Images, aims: Labels, threat: ThreatModel, seed: int
    ) -> Images:
        given = dict(self.settings)
        given |= {word: float(threat.eps) for word in RADII}
        given |= {"norm": threat.norm.capitalize(), "seed": seed % 2**31}
        if "n_classes" in self._arguments:
            given["n_classes"] = network(images[:1]).shape[1]
        attack = self._kind(
            network, **{word: value for word, value in given.items() if word in self._arguments}
        )
        if threat.target is not None:
            if "targeted" not in attack.supported_mode:
                raise ThreatModelError(f"{self.title} cannot aim at a class. Leave out the target.")
            attack.set_mode_targeted_by_label(quiet=True)
        found: Images = attack(images, aims)
        return found

    def _run_foolbox(
        self, network: nn.Module, images: Images, aims: Labels, threat: ThreatModel, seed: int
    ) -> Images:
        foolbox = _load("foolbox")
        model = foolbox.PyTorchModel(network, bounds=threat.bounds, device=images.device)
        goals = foolbox.criteria
        goal = (
            goals.Misclassification(aims)
            if threat.target is None
            else goals.TargetedMisclassification(aims)
        )
        try:
            _, found, _ = self._kind(**self.settings)(
                model, images, goal, epsilons=None if self.minimal else float(threat.eps)
            )
        except ValueError as error:
            if "criterion" in str(error) and threat.target is not None:
                raise ThreatModelError(
                    f"{self.title} cannot aim at a class. Leave out the target."
                ) from error
            raise
        points: Images = found
        return points


class SpentError(Exception):
    """The budget was spent within a library's loop."""


class Opaque(nn.Module):
    """A predictor as the module that libraries ask for; what they do to a module's flags does not
    reach it.
    """

    def __init__(self, predictor: Predictor, like: Images) -> None:
        super().__init__()
        # In a tuple, since a module among the attributes would become a part of this one.
        self._predictor = (predictor,)
        # Libraries read the device from the first parameter.
        self.place = nn.Parameter(like.new_zeros(1), requires_grad=False)

    def forward(self, images: Images) -> Logits:
        """Logits of `images`.

        Raises:
            SpentError: a budget that the predictor keeps is spent.
        """
        (predictor,) = self._predictor
        if exhausted(predictor):
            raise SpentError
        return logits_in(predictor(images), len(images))


def find_own(module: str, name: str) -> Any:
    """An attack of one's own: a class or function in a module that Python finds.

    Raises:
        SettingsError: no such module, or nothing of that name to call in it.
    """
    found = getattr(_load(module), name, None)
    if not callable(found):
        raise SettingsError(
            f"The module {module} has no attack {name!r}. Name a class or a function in it."
        )
    return found


def _load(module: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(module)
        except ImportError as error:
            advice = (
                f"Install it: pip install {module}."
                if module in LIBRARIES
                else did_you_mean(module, LIBRARIES)
            )
            raise SettingsError(
                f"The module {module!r} cannot be imported ({error}). {advice}"
            ) from error


def _find_class(library: str, name: str) -> Any:
    module = _load(library)
    if library == "foolbox":
        place, parent = module.attacks, module.attacks.base.AttackWithDistance
    else:
        place, parent = module, module.attack.Attack
    known = {
        word: kind
        for word, kind in vars(place).items()
        if inspect.isclass(kind) and issubclass(kind, parent)
    }
    if name not in known:
        raise SettingsError(f"{library} has no attack {name!r}. {did_you_mean(name, known)}")
    return known[name]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's and numpy's global random numbers from a seed; both are put back."""
    state = np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(state)
