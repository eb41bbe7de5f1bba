"""Everything that decides what an evaluation measures."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from robustmri.core.errors import SettingsError
from robustmri.core.settings import MANY, SEEDS, about, check_bounds
from robustmri.data.regions import Region
from robustmri.threat.eps import check_eps, parse_eps, radii_text


class Limits(NamedTuple):
    """What an attack may spend on each image; 0 is no limit.

    Attributes:
        seconds: time for an image on average: a batch of n has n times as much together.
        gradients: gradients of an image.
        forwards: images that the classifier is asked about in its place.
    """

    seconds: float = 0.0
    gradients: int = 0
    forwards: int = 0


class EvaluateSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one evaluation; the result folder keeps them."""

    attacks: Annotated[
        tuple[str, ...],
        about(
            "names of attacks, as `robustmri attacks` lists them, or of other libraries "
            "(torchattacks:NAME, foolbox:NAME)",
        ),
    ] = ("fgsm", "bim", "pgd", "cw")
    eps: Annotated[
        tuple[str, ...],
        about(
            'radii for every attack, as text with units ("0.04", "8/255", '
            '"0.04@normalised"); the first is the headline',
        ),
    ] = ("0.04",)
    curve: Annotated[
        tuple[str, ...],
        about(
            "further radii for the curve of accuracy against eps, with the `curve_attack` "
            "alone: one search for the smallest that fools each image (see "
            "`robustmri.attacks.minimal_eps`)",
        ),
    ] = ()
    curve_attack: Annotated[str, about("attack of the curve")] = "pgd"
    norm: Annotated[
        str,
        about(
            '"linf", "l2", "l1", or another of `robustmri.threat.norms`; attacks that look for '
            "the nearest fooling image in another norm keep their own",
        ),
    ] = "linf"
    threat: Annotated[
        str,
        about(
            "a physical threat in place of a norm, whose parameters the attacks search, with eps "
            "in its own unit: bias-field, gamma, affine, deformation or patch"
        ),
    ] = ""
    corruptions: Annotated[
        tuple[str, ...],
        about(
            "what else is measured: corruptions by a scanner at five severities, physical threats "
            'at their usual eps, by name, or "all" of them'
        ),
    ] = ()
    target: Annotated[
        str,
        about(
            'class that the attacker wants to see; "" for any wrong one',
        ),
    ] = ""
    region: Annotated[
        Region, about("where pixels may change, a key of `robustmri.data.regions.REGIONS`")
    ] = "image"
    regions: Annotated[
        tuple[Region, ...],
        about(
            "parts of the slice to which one attack is confined in turn, for the table of regions; "
            "`image` is the attack that is not confined"
        ),
    ] = ()
    regions_attack: Annotated[str, about("attack of the table of regions, at the first eps")] = (
        "pgd"
    )
    saliency: Annotated[
        int,
        about(
            "slices, evenly spaced, of which it is measured how much of the attribution lies in "
            "the lesion; 0: none",
            at_least=0,
        ),
    ] = 0
    detectors: Annotated[
        tuple[str, ...],
        about(
            "detectors of attacked slices, each told with an attack on it and the classifier "
            'together: feature-squeezing, mahalanobis, or "all"'
        ),
    ] = ()
    false_alarms: Annotated[
        float,
        about(
            "share of untouched validation slices about which a detector may raise an alarm, by "
            "which its threshold is set",
            above=0,
            at_most=0.5,
        ),
    ] = 0.05
    options: Annotated[
        dict[str, dict[str, Any]],
        about("settings of single attacks, by name, in place of their defaults"),
    ] = {}
    evaluated_set: Annotated[
        Literal["test", "validation"],
        about(
            '"test", or "validation" to compare settings without a look at the test patients',
        ),
    ] = "test"
    classes: Annotated[
        tuple[str, ...],
        about(
            "THEIRS=OURS: a class of the cohort, and the classifier's name for it, where they "
            "differ; classes may be merged"
        ),
    ] = ()
    cases: Annotated[tuple[str, ...], about("case ids of that set, in place of all of it")] = ()
    patients: Annotated[tuple[str, ...], about("patients of that set, in place of all of it")] = ()
    limit: Annotated[int, about("slices of that set, evenly spaced; 0: all", at_least=0)] = 0
    minimal_limit: Annotated[
        int,
        about(
            "the same for attacks that look for the nearest fooling image, which cost far "
            "more; 0: all",
            at_least=0,
        ),
    ] = 0
    examples_per_class: Annotated[
        int, about("pictures of each class in the report", at_least=0, at_most=MANY)
    ] = 2
    examples: Annotated[
        tuple[str, ...], about("case ids of the pictures; empty: chosen by a stated rule")
    ] = ()
    max_seconds: Annotated[
        float,
        about(
            "time that an attack may take for an image, on average over its batch; 0: any. It "
            "then ends with what it has, and the result depends on the machine",
            at_least=0,
            at_most=MANY**2,
        ),
    ] = 0.0
    max_gradients: Annotated[
        int, about("gradients that it may take of an image; 0: any", at_least=0)
    ] = 0
    max_forwards: Annotated[
        int,
        about(
            "how often it may ask the classifier about an image, or one in its place; 0: any",
            at_least=0,
        ),
    ] = 0
    batch_size: Annotated[
        int,
        about(
            "slices attacked together; they are also the unit that a rerun after a kill does "
            "not repeat",
            at_least=1,
            at_most=MANY,
        ),
    ] = 64
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        about("arithmetic of the search; every success is confirmed in float32 whatever it says"),
    ] = "auto"
    compile: Annotated[
        bool,
        about(
            "whether `torch.compile` makes the search's view; pays, if at all, in long runs "
            "on a GPU",
        ),
    ] = False
    seed: Annotated[int, about("of the attacks", at_least=0, at_most=SEEDS)] = 0

    def __post_init__(self) -> None:
        for name in ("eps", "curve"):
            msgspec.structs.force_setattr(self, name, radii_text(getattr(self, name)))
        if not self.attacks or not self.eps:
            raise SettingsError("an evaluation needs at least one attack and one eps.")
        check_bounds(self)
        for text in (*self.eps, *self.curve):
            eps = parse_eps(text)
            # Most attacks in l0 have no radius, and a physical threat has a unit; the plan knows.
            if self.norm != "l0" and not self.threat:
                check_eps(eps, self.norm)
        if len(self.class_names) < len(self.classes):
            raise SettingsError(
                "classes must be pairs THEIRS=OURS, each class once, got "
                f"{', '.join(self.classes)}."
            )

    @property
    def class_names(self) -> dict[str, str]:
        """Class of the cohort to class of the classifier, where they differ."""
        pairs = (text.partition("=")[::2] for text in self.classes)
        return {theirs.strip(): ours.strip() for theirs, ours in pairs if theirs and ours}

    @property
    def chosen(self) -> bool:
        """Whether slices were named in place of the whole set."""
        return bool(self.cases or self.patients)

    @property
    def limits(self) -> Limits:
        """What an attack may spend on each image."""
        return Limits(self.max_seconds, self.max_gradients, self.max_forwards)


class CertifySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a certificate by randomised smoothing; its folder keeps them."""

    sigma: Annotated[
        float,
        about(
            "standard deviation of the noise, as a fraction of the [0, 1] range: more of it "
            "certifies further, and costs accuracy",
            above=0,
            at_most=10,
        ),
    ] = 0.25
    samples: Annotated[
        int, about("noisy copies that vote on each slice", at_least=10, at_most=MANY)
    ] = 1000
    guesses: Annotated[
        int,
        about("further copies, which choose the class that is voted on", at_least=1, at_most=MANY),
    ] = 100
    alpha: Annotated[
        float,
        about(
            "probability with which any certificate of the whole table may be wrong; each slice "
            "gets an equal part of it",
            above=0,
            below=1,
        ),
    ] = 0.001
    limit: Annotated[int, about("slices of the result, evenly spaced; 0: all", at_least=0)] = 0
    attack_steps: Annotated[
        int,
        about(
            "steps of the attack on the smoothed classifier, the other side of the bracket; 0: "
            "none",
            at_least=0,
            at_most=MANY,
        ),
    ] = 40
    attack_draws: Annotated[
        int, about("noisy copies that each of its steps averages", at_least=1, at_most=MANY)
    ] = 16
    batch_size: Annotated[
        int, about("noisy copies asked about together", at_least=1, at_most=MANY)
    ] = 256
    seed: Annotated[int, about("of the noise and of the bootstrap", at_least=0, at_most=SEEDS)] = 0

    def __post_init__(self) -> None:
        check_bounds(self)
