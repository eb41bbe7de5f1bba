"""The comparisons: what is attacked, who takes part, and what is said of each besides its time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.contenders import OURS, Contender, Points
from benchmarks.digits import EPS, HELD_OUT, hardened_on_digits, load_digits
from benchmarks.gradient_step import gradient_steps
from benchmarks.inputs import Inputs, is_there
from benchmarks.lineups import (
    ALL_QUERIES,
    CURVE,
    CW,
    FGSM_FIRST,
    PGD,
    STANDARD_3,
    STANDARD_10,
    STANDARD_10_ART,
)
from benchmarks.memory import peaks
from benchmarks.setting import QUICK, Setting
from benchmarks.step_profile import profile_steps
from benchmarks.timing import Entry, race, ratios_of, row_of
from benchmarks.training import training_steps
from robustmri.core.arrays import Images
from robustmri.evaluation.attacked import verify
from robustmri.evaluation.exact import logits_of
from robustmri.threat.threat_model import ThreatModel

Record = dict[str, Any]
Judge = Callable[[Setting, dict[str, Points]], dict[str, dict[str, Any]]]

RADII = tuple(grey / 255 for grey in (1, 2, 4, 6, 8, 10.2, 12, 16))


def standing(setting: Setting, points: Images, eps: float, norm: str = "linf") -> Tensor:
    """Which images the original, in float32, still gets right; a point further away than eps counts
    for nothing.
    """
    threat = ThreatModel(norm, eps)
    batches = zip(points.split(setting.batch), setting.batches(), strict=True)
    held = [
        ~verify(setting.classifier, part, images, labels, threat).fooled
        for part, (images, labels) in batches
    ]
    return torch.cat(held)


def judge_budget(setting: Setting, outputs: dict[str, Points]) -> dict[str, dict[str, Any]]:
    """Accuracy at each radius, and on how many images the outcome is another one than ours."""
    radii = setting.radii or (setting.eps,)
    held = {
        name: torch.stack(
            [standing(setting, at, eps) for at, eps in zip(points, radii, strict=True)]
        )
        for name, points in outputs.items()
    }
    return {
        name: {
            "accuracy": _plain(stand.float().mean(1)),
            "stands_here_only": _plain((stand & ~held[OURS]).sum(1)),
            "stands_in_ours_only": _plain((held[OURS] & ~stand).sum(1)),
        }
        for name, stand in held.items()
    }


def judge_distance(setting: Setting, outputs: dict[str, Points]) -> dict[str, dict[str, Any]]:
    """Accuracy at any distance and within eps, and the mean l2 distance where everyone fooled."""
    held = {
        name: standing(setting, points[0], float("inf"), "l2") for name, points in outputs.items()
    }
    right = standing(setting, setting.images, 0.0)
    everywhere = right & ~torch.stack(list(held.values())).any(0)
    facts = {}
    for name, (points,) in outputs.items():
        distance = (points - setting.images).flatten(1).norm(dim=1)
        facts[name] = {
            "accuracy": _plain(held[name].float().mean()),
            "accuracy_within_eps": _plain(standing(setting, points, setting.eps).float().mean()),
            "mean_l2": _plain(distance[everywhere].mean()) if everywhere.any() else None,
            "images_of_mean_l2": int(everywhere.sum()),
        }
    return facts


def _plain(values: Tensor) -> Any:
    """Numbers for JSON; a list of one is that one."""
    numbers = [round(number, 4) for number in values.reshape(-1).tolist()]
    return numbers if len(numbers) > 1 else numbers[0]


@dataclass(frozen=True)
class Comparison:
    """Attacks against one another: called with the inputs, it gives the task's record.

    Args:
        title: what is compared.
        setting: from the inputs.
        contenders: who takes part; the first is ours.
        most: images at most; these tasks are slow.
        judge: what is said of what came out.
        against: contenders that the others' times are divided by.
    """

    title: str
    setting: Callable[[Inputs], Setting]
    contenders: tuple[Contender, ...]
    most: int
    judge: Judge = judge_budget
    against: tuple[str, ...] = (OURS,)

    def __call__(self, inputs: Inputs) -> Record:
        """Run everyone that is installed."""
        setting = self.setting(inputs)
        setting = replace(
            setting, images=setting.images[: self.most], labels=setting.labels[: self.most]
        )
        clean = [logits_of(setting.classifier, images) for images, _ in setting.batches()]
        setting = replace(setting, clean=torch.cat(clean))
        present = [contender for contender in self.contenders if is_there(contender.library)]
        entries = [
            Entry(one.name, partial(_prepare, one, setting), one.rounds, may_fail=bool(one.library))
            for one in present
        ]
        finishes = race(entries, rounds=inputs.rounds, warm_up=inputs.work != QUICK, say=inputs.say)
        outputs = {
            name: finish.output for name, finish in finishes.items() if finish.output is not None
        }
        facts = self.judge(setting, outputs)
        rows = [
            row_of(one.name, finishes[one.name], **facts.get(one.name, {}), note=one.note)
            for one in present
        ]
        pairs = [(one.name, ours) for ours in self.against for one in present if one.name != ours]
        return {
            "title": self.title,
            "setting": {
                "backbone": setting.classifier.spec.backbone,
                "size": setting.classifier.spec.size,
                "classes": setting.classes,
                "images": len(setting.images),
                "batch": setting.batch,
                "clean_accuracy": _plain(standing(setting, setting.images, 0.0).float().mean()),
                "eps": [round(radius, 5) for radius in setting.radii] or setting.eps,
                "steps": setting.steps,
                "step_size_of_eps": setting.step_size,
            },
            "rows": rows,
            "ratios": ratios_of(finishes, pairs),
            "failed": {name: finish.failed for name, finish in finishes.items() if finish.failed},
            "missing": [one.name for one in self.contenders if one not in present],
        }


def _prepare(contender: Contender, setting: Setting, warm_up: bool) -> Callable[[], Points]:
    own = (setting.warm_up() if warm_up else setting).own()
    return lambda: contender.attack(own)


def on_standard(inputs: Inputs) -> Setting:
    """The undefended checkpoint."""
    return Setting(inputs.standard, inputs.images, inputs.labels, inputs.eps, work=inputs.work)


def on_hardened(inputs: Inputs) -> Setting:
    """The hardened checkpoint."""
    return Setting(inputs.hardened, inputs.images, inputs.labels, inputs.eps, work=inputs.work)


def on_curve(inputs: Inputs) -> Setting:
    """The undefended checkpoint at several radii."""
    return replace(on_standard(inputs), radii=RADII)


def on_digits(inputs: Inputs) -> Setting:
    """A network of ten classes, trained here; as many images as asked for."""
    inputs.say("training a network on digits")
    classifier = hardened_on_digits(epochs=inputs.work.digits_epochs, limit=inputs.work.digits)
    images, labels = load_digits()
    few = min(HELD_OUT, len(inputs.images))
    return Setting(classifier, images[:few], labels[:few], EPS, work=inputs.work)


TASKS: dict[str, Callable[[Inputs], Record]] = {
    "pgd-undefended": Comparison(
        "PGD-20 on an undefended network", on_standard, PGD, 256, against=(OURS, FGSM_FIRST)
    ),
    "cw-undefended": Comparison(
        "CW on an undefended network",
        on_standard,
        CW,
        8,
        judge_distance,
        (OURS, f"{OURS} cw-l2", f"{OURS} cw-l2, from the boundary"),
    ),
    "pgd-hardened": Comparison("PGD-20 on a hardened network", on_hardened, PGD, 256),
    "standard-10": Comparison(
        "AutoAttack on ten classes",
        on_digits,
        STANDARD_10,
        64,
        against=(OURS, f"{OURS}, 10 steps", ALL_QUERIES),
    ),
    "standard-10-art": Comparison(
        "ART's AutoAttack on ten classes", on_digits, STANDARD_10_ART, 16
    ),
    "standard-3": Comparison(
        "AutoAttack on three classes", on_hardened, STANDARD_3, 8, against=(OURS, ALL_QUERIES)
    ),
    "curve": Comparison("Accuracy at eight radii, undefended", on_curve, CURVE, 64),
    "gradient-step": gradient_steps,
    "profile": lambda inputs: profile_steps(inputs.work, inputs.rounds, inputs.say),
    "training": training_steps,
    "memory": partial(peaks, contenders=PGD),
}
