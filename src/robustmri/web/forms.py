"""What can be asked for in the page: a form for each verb."""

from __future__ import annotations

from functools import cache

import msgspec

from robustmri.evaluation.settings import EvaluateSettings
from robustmri.recipes import PrepareSettings
from robustmri.report.wording import titles_of
from robustmri.results.schema import RobustnessReport
from robustmri.training.settings import TrainSettings
from robustmri.web.fields import (
    MACHINES,
    WITHOUT_IMAGES,
    Field,
    Form,
    choice_field,
    named_recipes,
    other_settings,
    out_field,
    recipe_field,
    setting_field,
    thing_field,
)
from robustmri.web.study_forms import study_forms

STRETCH = Field(
    name="stretch",
    label="Stretch slices of another aspect ratio, in place of black borders",
    what="switch",
    option="--stretch",
)
WINDOWS = {"": "all grey values", "file": "clipped to the one that each file carries"}
CHANNELS = {"": "as the first slices are", "1": "grey", "3": "colour"}


def _line(name: str, label: str, help: str) -> Field:
    return Field(name=name, label=label, what="line", option=f"--{name}", help=help)


TITLE = _line("title", "Heading", "Of the page; empty: as usual.")
NAMES = Field(
    name="names",
    label="Names",
    what="names",
    option="--names",
    help="What the classifiers are called, divided by commas, in the order of the results.",
)


def _fit(verb: str, title: str, about: str, *, repairs: bool) -> Form:
    """Train and harden are one fit with two objectives, and ask nearly the same."""
    weights = setting_field(TrainSettings, "weights", "Pretrained weights")
    own = [
        setting_field(TrainSettings, "backbone", "Network", "--model"),
        msgspec.structs.replace(
            weights, what="word", help="None, imagenet, radimagenet, or another name of the docs."
        ),
    ]
    if repairs:
        own = [
            setting_field(TrainSettings, "eps", "Radius eps"),
            setting_field(TrainSettings, "objective", "Objective"),
            setting_field(TrainSettings, "clean_cost", "Clean cost"),
        ]
    return Form(
        verb=verb,
        title=title,
        about=about,
        estimates=True,
        fields=[
            *([thing_field("run", "Run to repair")] if repairs else []),
            thing_field("cohort", "Cohort"),
            out_field("hardened" if repairs else "standard", "run"),
            recipe_field(),
            *own,
            setting_field(TrainSettings, "epochs", "Epochs"),
            setting_field(TrainSettings, "seed", "Seed"),
            setting_field(TrainSettings, "minutes", "Minutes"),
            *MACHINES,
            other_settings("train"),
        ],
    )


SAID_NORM = "How the size of a change is measured."
NORM_CHOICES = {
    "linf": "linf: each pixel by itself",
    "l2": "l2: root of the summed squares",
    "l1": "l1: sum over all pixels",
}
ENDS = {"": "seen by its outputs", "logits": "logits", "softmax": "softmax", "sigmoid": "sigmoid"}
LAYOUTS = {"onnx": "ONNX: one file", "pt2": "torch.export", "huggingface": "Hugging Face: a folder"}


@cache
def make_forms() -> dict[str, Form]:
    """By verb, in the order of the work."""
    forms = [
        Form(
            verb="prepare",
            title="Prepare",
            about="Read scans into a cohort, and split it into train, validation and test.",
            fields=[
                thing_field("source", "Scans"),
                out_field("cohort", "cohort"),
                setting_field(PrepareSettings, "size", "Pixels", default="96"),
                setting_field(PrepareSettings, "split", "Split"),
                setting_field(PrepareSettings, "fold", "Test fold"),
                choice_field("channels", "Channels", CHANNELS, "Of the stored slices."),
                setting_field(PrepareSettings, "intensity", "Grey values"),
                STRETCH,
                setting_field(PrepareSettings, "slices", "Slices of a volume"),
                choice_field("window", "Window", WINDOWS, "Of DICOM files."),
                msgspec.structs.replace(
                    setting_field(PrepareSettings, "columns", "Columns"), what="names"
                ),
                msgspec.structs.replace(
                    setting_field(PrepareSettings, "patient_pattern", "Patient in a path"),
                    what="line",
                ),
                setting_field(PrepareSettings, "seed", "Seed"),
            ],
        ),
        Form(
            verb="import",
            title="Import",
            about="Make a checkpoint of a classifier that was trained elsewhere, and check it.",
            guarded=True,
            fields=[
                thing_field("model", "Model file", upload=True),
                out_field("imported", "checkpoint"),
                Field(
                    name="classes",
                    label="Classes",
                    what="names",
                    option="--classes",
                    help="In the order of its outputs, divided by commas; empty: as it says.",
                    setting=False,
                ),
                thing_field(
                    "cohort",
                    "Tried on",
                    option="--check",
                    optional=True,
                    help="A cohort whose slices it should know; without one, on phantoms.",
                ),
                Field(
                    name="arch",
                    label="Network",
                    what="text",
                    option="--arch",
                    help="Of a file of weights: resnet18, timm:NAME, torchvision:NAME ...",
                ),
                Field(
                    name="size",
                    label="Pixels",
                    what="text",
                    option="--size",
                    help="Along its images, N or HEIGHTxWIDTH; empty: as the file says.",
                ),
                choice_field("channels", "Channels", CHANNELS | {"": "as the file says"}),
                thing_field(
                    "model",
                    "Its weights",
                    name="weights",
                    option="--weights",
                    upload=True,
                    optional=True,
                    setting=True,
                    help="Where another package would build the network: timm:, torchvision:.",
                ),
                Field(
                    name="slices",
                    label="Slices it is tried on",
                    what="number",
                    option="--slices",
                    help="Of the cohort.",
                ),
                Field(
                    name="mean",
                    label="Mean",
                    what="text",
                    option="--mean",
                    help="What its images, in [0, 1], are normalised with: 1 or 3 numbers.",
                ),
                Field(
                    name="std",
                    label="Standard deviation",
                    what="text",
                    option="--std",
                    help="Likewise.",
                ),
                choice_field("ends_in", "What comes out", ENDS),
                Field(
                    name="black_box",
                    label="Only ask it, without gradients (ONNX)",
                    what="switch",
                    option="--black-box",
                ),
            ],
        ),
        Form(
            verb="inspect",
            title="Inspect",
            about="Look for leakage in cohorts: patients, copies, classes, odd slices.",
            suffix=".html",
            fields=[
                Field(
                    name="cohorts",
                    label="Cohorts",
                    what="things",
                    kind="cohort",
                    optional=False,
                    setting=False,
                ),
                out_field("inspect.html", "page", "--report"),
                WITHOUT_IMAGES,
            ],
        ),
        _fit("train", "Train", "Train a classifier on clean slices.", repairs=False),
        _fit("harden", "Harden", "Repair a classifier by adversarial training.", repairs=True),
        Form(
            verb="evaluate",
            title="Evaluate",
            about="Attack a classifier on the test slices, and write down what each one survives.",
            estimates=True,
            fields=[
                thing_field("run", "Run to attack"),
                thing_field("cohort", "Cohort"),
                out_field("result", "result"),
                recipe_field(),
                setting_field(EvaluateSettings, "attacks", "Attacks"),
                setting_field(EvaluateSettings, "eps", "Radii eps"),
                setting_field(EvaluateSettings, "curve", "Radii of the curve"),
                choice_field("norm", "Norm", {"": "as the recipe says"} | NORM_CHOICES, SAID_NORM),
                setting_field(EvaluateSettings, "threat", "Physical threat"),
                setting_field(EvaluateSettings, "corruptions", "Corruptions by a scanner"),
                msgspec.structs.replace(
                    setting_field(EvaluateSettings, "target", "Target"), what="names"
                ),
                setting_field(EvaluateSettings, "region", "Region"),
                msgspec.structs.replace(
                    setting_field(EvaluateSettings, "regions", "Table of regions"), what="text"
                ),
                setting_field(EvaluateSettings, "saliency", "Slices for saliency"),
                msgspec.structs.replace(
                    setting_field(EvaluateSettings, "detectors", "Detectors of attacks"),
                    what="text",
                ),
                msgspec.structs.replace(
                    setting_field(EvaluateSettings, "classes", "Classes by other names"),
                    what="names",
                ),
                setting_field(EvaluateSettings, "limit", "Slices at most"),
                setting_field(EvaluateSettings, "seed", "Seed"),
                *MACHINES,
                other_settings("evaluate"),
            ],
        ),
        Form(
            verb="case",
            title="Case",
            about="Ask about one slice how little it takes to change the answer, and to what.",
            guarded=True,
            fields=[
                thing_field("slice", "Slice", upload=True),
                thing_field("run", "Classifier"),
                out_field("case", "answer"),
                choice_field("norm", "Norm", NORM_CHOICES, SAID_NORM),
                setting_field(PrepareSettings, "intensity", "Grey values"),
                STRETCH,
                choice_field("window", "Window", WINDOWS, "Of DICOM files."),
                thing_field(
                    "slice",
                    "Outline of the lesion",
                    name="mask",
                    option="--mask",
                    upload=True,
                    optional=True,
                    setting=True,
                    help="An image of the same size in which the lesion is not black.",
                ),
                thing_field(
                    "result",
                    "Compared with",
                    option="--result",
                    optional=True,
                    setting=True,
                    help="A result of the same classifier: how many slices are more fragile.",
                ),
                Field(name="seed", label="Seed", what="number", option="--seed"),
            ],
        ),
        Form(
            verb="compare",
            title="Compare",
            about="Pair two results of the same slices by patient: which withstands more, and for "
            "whom.",
            suffix=".html",
            fields=[
                thing_field("result", "First", name="first"),
                thing_field("result", "Second", name="second"),
                out_field("compare.html", "page"),
                WITHOUT_IMAGES,
                NAMES,
                TITLE,
            ],
        ),
        Form(
            verb="report",
            title="Report",
            about="Write one page about a result, or about before and after, to print or to send.",
            suffix=".html",
            fields=[
                Field(
                    name="results",
                    label="Results: tick the one before repair first",
                    what="things",
                    kind="result",
                    optional=False,
                    setting=False,
                ),
                out_field("report.html", "page"),
                WITHOUT_IMAGES,
                NAMES,
                TITLE,
                Field(
                    name="min",
                    label="Minima",
                    what="several",
                    option="--min",
                    help="The least that a number must be: clean=0.9 worst_case=0.5.",
                ),
            ],
        ),
        Form(
            verb="export",
            title="Export",
            about="Write a classifier for other programs, its normalisation included.",
            fields=[
                thing_field("run", "Run"),
                out_field("exported", "export"),
                msgspec.structs.replace(choice_field("to", "As", LAYOUTS), setting=False),
                thing_field(
                    "result",
                    "Its figures",
                    option="--result",
                    optional=True,
                    setting=True,
                    help="A result of it, for the model card.",
                ),
            ],
        ),
        *study_forms(),
    ]
    return {form.verb: form for form in forms}


def search_fields(report: RobustnessReport) -> list[Field]:
    """What can be chosen, filled in as the result was measured."""
    tried = [name for recipe in named_recipes().values() for name in recipe.evaluate.attacks]
    names = [*(run.attack for run in report.attacks), *tried]
    radii = [*report.asked.curve, *report.asked.eps]
    targets = {"": "any wrong class", **{name: name for name in report.cohort.classes}}
    titles = titles_of([report])
    attacks = {name: titles.get(name, name) for name in dict.fromkeys(names) if ":" not in name}
    attack = choice_field("attack", "Attack", attacks, "How a change that fools it is looked for.")
    if (usual := report.asked.curve_attack) in attacks:
        attack = msgspec.structs.replace(attack, default=usual)
    region = setting_field(EvaluateSettings, "region", "Region")
    others = {name: name for name in region.choices if name not in ("", "image")}
    region = msgspec.structs.replace(region, choices={"": "the whole slice"} | others)
    return [
        attack,
        choice_field("norm", "Norm", NORM_CHOICES, SAID_NORM),
        Field(
            name="radii",
            label="Radii eps",
            what="text",
            default=",".join(radii),
            help="Divided by commas; one search answers for all of them.",
            optional=False,
        ),
        region,
        choice_field("target", "Target", targets, "What the attacker wants to see."),
    ]
