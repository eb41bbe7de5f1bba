"""Forms of what takes long: a certificate, and studies of many runs."""

from __future__ import annotations

import msgspec

from robustmri.evaluation.settings import CertifySettings
from robustmri.training.settings import TrainSettings
from robustmri.web.fields import (
    MACHINES,
    WITHOUT_IMAGES,
    Field,
    Form,
    other_settings,
    out_field,
    recipe_field,
    setting_field,
    thing_field,
)


def study_forms() -> list[Form]:
    """Certify, cross-validate and ablate."""
    return [_certify(), _cross_validate(), _ablate()]


def _certify() -> Form:
    labels = {
        "sigma": "Noise sigma",
        "samples": "Noisy copies of a slice",
        "alpha": "Chance of an error, alpha",
        "limit": "Slices at most",
        "attack_steps": "Steps of the attack on it",
        "seed": "Seed",
    }
    usual = CertifySettings()
    asked = [
        msgspec.structs.replace(
            setting_field(CertifySettings, name, label), empty=f"{getattr(usual, name):g}"
        )
        for name, label in labels.items()
    ]
    return Form(
        verb="certify",
        title="Certify",
        about="Say up to which size no change at all alters the answers, by asking about many "
        "noisy copies of each slice. The certificate is shown with the result.",
        fields=[
            thing_field("run", "Classifier"),
            thing_field("cohort", "Cohort"),
            thing_field(
                "result",
                "Into the result",
                option="--out",
                help="A result of the same classifier on the same cohort.",
            ),
            *asked,
            *(msgspec.structs.replace(field, empty="1") for field in MACHINES),
        ],
    )


def _only(parts: str, example: str) -> Field:
    return Field(
        name="only",
        label=f"Only these {parts}",
        what="text",
        option="--only",
        empty="all",
        help=f"Divided by commas, such as {example}; the last one makes the table of all.",
    )


def _cross_validate() -> Form:
    return Form(
        verb="cross-validate",
        title="Cross-validate",
        about="Train, attack, harden and attack again, five times: each patient is a test patient "
        "once. Hours; what was stopped goes on where it was.",
        fields=[
            thing_field("source", "Scans"),
            out_field("folds", "study"),
            recipe_field(),
            _only("folds", "1,2"),
            setting_field(TrainSettings, "minutes", "Minutes"),
            WITHOUT_IMAGES,
            other_settings("prepare, train, harden, evaluate"),
        ],
    )


def _ablate() -> Form:
    return Form(
        verb="ablate",
        title="Ablate",
        about="Harden by each variant of a recipe, and compare them on the validation patients: "
        "what each ingredient is worth. Hours; what was stopped goes on where it was.",
        fields=[
            thing_field("cohort", "Cohort"),
            out_field("ablation", "study"),
            recipe_field("ablation", lambda recipe: bool(recipe.variants)),
            _only("variants", "base,trades"),
            setting_field(TrainSettings, "minutes", "Minutes"),
            other_settings("train, harden, evaluate"),
        ],
    )
