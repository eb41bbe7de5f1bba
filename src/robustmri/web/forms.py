"""What can be asked for in the page: a form for each verb."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import msgspec

from robustmri.core.settings import bounds_of, choices_of, help_of
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.recipes import PrepareSettings, list_recipes, load_recipe
from robustmri.results.schema import RobustnessReport
from robustmri.training.settings import TrainSettings
from robustmri.web.folder import Kind

What = Literal["thing", "things", "text", "names", "number", "choice", "switch", "out"]
PHANTOM = "phantom"


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A question of a form.

    Attributes:
        name: of the answer.
        option: the command's option; empty where the answer is a word of its own.
        kind: for a thing, what it must be.
        upload: whether such a thing can be given to the page.
        choices: value to how it is called.
        setting: whether it belongs to those that are usually left as they are.
    """

    name: str
    label: str
    what: What
    option: str = ""
    kind: Kind = "run"
    upload: bool = False
    choices: dict[str, str] = {}
    default: str = ""
    help: str = ""
    optional: bool = True
    setting: bool = True


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """The questions of a verb, its words of their own first.

    Attributes:
        suffix: what the name of a file that it makes ends in; empty where it makes a folder.
        estimates: whether the verb can say how long it would take.
        guarded: whether it opens files from elsewhere, and is limited in memory and time.
    """

    verb: str
    title: str
    about: str
    fields: list[Field]
    suffix: str = ""
    estimates: bool = False
    guarded: bool = False


def setting_field(
    kind: type[msgspec.Struct], name: str, label: str, option: str = "", default: str = ""
) -> Field:
    """The question about a setting; its help, bounds and choices stand at the setting."""
    about = msgspec.inspect.type_info(kind)
    field = next(one for one in about.fields if one.name == name)  # type: ignore[attr-defined]
    number = any(word in repr(field.type) for word in ("IntType", "FloatType"))
    choices, bounds = choices_of(kind, name), bounds_of(kind, name)
    said = help_of(kind, name) + (f"; {bounds}" if number and bounds else "")
    unset = "as usual" if kind is PrepareSettings else "as the recipe says"
    return Field(
        name=name,
        label=label,
        what="choice" if choices else "number" if number else "text",
        option=option or f"--{name.replace('_', '-')}",
        choices={"": unset, **{str(one): str(one) for one in choices}} if choices else {},
        default=default,
        help=_sentence(said),
    )


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _out(default: str, made: str) -> Field:
    said = f"Name of the {made}, which must be new in this folder."
    return Field(
        name="out",
        label="Call it",
        what="out",
        option="--out",
        default=default,
        help=said,
        optional=False,
        setting=False,
    )


def _thing(kind: Kind, label: str, **more: Any) -> Field:
    given = {"name": kind, "optional": False, "setting": False} | more
    return Field(label=label, what="thing", kind=kind, **given)


def choice_field(name: str, label: str, choices: dict[str, str], help: str = "") -> Field:
    """The question which of some; the first one unless told otherwise."""
    return Field(
        name=name,
        label=label,
        what="choice",
        option=f"--{name.replace('_', '-')}",
        choices=choices,
        default=next(iter(choices)),
        help=help,
    )


def _recipe() -> Field:
    about = {name: f"{name}: {load_recipe(name).about}" for name in list_recipes()}
    said = "Named settings; what is left empty below is as the recipe says."
    field = choice_field("recipe", "Recipe", about, said)
    return msgspec.structs.replace(field, default="standard", setting=False)


def _fit(verb: str, title: str, about: str, *, repairs: bool) -> Form:
    """Train and harden are one fit with two objectives, and ask nearly the same."""
    own = [setting_field(TrainSettings, "backbone", "Network", "--model")]
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
            *([_thing("run", "Run to repair")] if repairs else []),
            _thing("cohort", "Cohort"),
            _out("hardened" if repairs else "standard", "run"),
            _recipe(),
            *own,
            setting_field(TrainSettings, "epochs", "Epochs"),
            setting_field(TrainSettings, "seed", "Seed"),
            setting_field(TrainSettings, "minutes", "Minutes"),
        ],
    )


WITHOUT_IMAGES = Field(
    name="without",
    label="Without images and ids",
    what="switch",
    option="--no-images",
    help="Then the page may leave the hospital.",
)
NORMS = {
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
                _thing("source", "Scans"),
                _out("cohort", "cohort"),
                setting_field(PrepareSettings, "size", "Pixels", default="96"),
                setting_field(PrepareSettings, "split", "Split"),
                setting_field(PrepareSettings, "intensity", "Grey values"),
                setting_field(PrepareSettings, "slices", "Slices of a volume"),
                setting_field(PrepareSettings, "seed", "Seed"),
            ],
        ),
        Form(
            verb="import",
            title="Import",
            about="Make a checkpoint of a classifier that was trained elsewhere, and check it.",
            guarded=True,
            fields=[
                _thing("model", "Model file", upload=True),
                _out("imported", "checkpoint"),
                Field(
                    name="classes",
                    label="Classes",
                    what="names",
                    option="--classes",
                    help="In the order of its outputs, divided by commas; empty: as it says.",
                    setting=False,
                ),
                _thing(
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
                    what="number",
                    option="--size",
                    help="Along its images; empty: as the file says.",
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
        _fit("train", "Train", "Train a classifier on clean slices.", repairs=False),
        _fit("harden", "Harden", "Repair a classifier by adversarial training.", repairs=True),
        Form(
            verb="evaluate",
            title="Evaluate",
            about="Attack a classifier on the test slices, and write down what each one survives.",
            estimates=True,
            fields=[
                _thing("run", "Run to attack"),
                _thing("cohort", "Cohort"),
                _out("result", "result"),
                _recipe(),
                setting_field(EvaluateSettings, "attacks", "Attacks"),
                setting_field(EvaluateSettings, "eps", "Radii eps"),
                setting_field(EvaluateSettings, "curve", "Radii of the curve"),
                setting_field(EvaluateSettings, "norm", "Norm"),
                msgspec.structs.replace(
                    setting_field(EvaluateSettings, "target", "Target"), what="names"
                ),
                setting_field(EvaluateSettings, "region", "Region"),
                setting_field(EvaluateSettings, "limit", "Slices at most"),
                setting_field(EvaluateSettings, "seed", "Seed"),
            ],
        ),
        Form(
            verb="case",
            title="Case",
            about="Ask about one slice how little it takes to change the answer, and to what.",
            guarded=True,
            fields=[
                _thing("slice", "Slice", upload=True),
                _thing("run", "Classifier"),
                _out("case", "answer"),
                choice_field("norm", "Norm", NORMS, "How the size of a change is measured."),
                setting_field(PrepareSettings, "intensity", "Grey values"),
                _thing(
                    "result",
                    "Compared with",
                    option="--result",
                    optional=True,
                    setting=True,
                    help="A result of the same classifier: how many slices are more fragile.",
                ),
            ],
        ),
        Form(
            verb="compare",
            title="Compare",
            about="Pair two results of the same slices by patient: which withstands more, and for "
            "whom.",
            suffix=".html",
            fields=[
                _thing("result", "First", name="first"),
                _thing("result", "Second", name="second"),
                _out("compare.html", "page"),
                WITHOUT_IMAGES,
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
                    label="Results, the one before repair first",
                    what="things",
                    kind="result",
                    optional=False,
                    setting=False,
                ),
                _out("report.html", "page"),
                WITHOUT_IMAGES,
            ],
        ),
        Form(
            verb="export",
            title="Export",
            about="Write a classifier for other programs, its normalisation included.",
            fields=[
                _thing("run", "Run"),
                _out("exported", "export"),
                msgspec.structs.replace(choice_field("to", "As", LAYOUTS), setting=False),
            ],
        ),
    ]
    return {form.verb: form for form in forms}


@cache
def _attacks_of_recipes() -> list[str]:
    return [name for recipe in list_recipes() for name in load_recipe(recipe).evaluate.attacks]


def search_fields(report: RobustnessReport) -> list[Field]:
    """What can be chosen, filled in as the result was measured."""
    done = report.settings.get("evaluate", {})
    names = [*(run.attack for run in report.attacks), *_attacks_of_recipes()]
    radii = [str(one) for one in (*done.get("curve", ()), *done.get("eps", ()))]
    targets = {"": "any wrong class", **{name: name for name in report.cohort.classes}}
    attacks = {name: name for name in dict.fromkeys(names) if ":" not in name}
    return [
        choice_field("attack", "Attack", attacks, "One of `robustmri attacks`."),
        choice_field("norm", "Norm", NORMS, "How the size of a change is measured."),
        Field(
            name="radii",
            label="Radii eps",
            what="text",
            default=",".join(radii),
            help="Divided by commas; one search answers for all of them.",
            optional=False,
        ),
        setting_field(EvaluateSettings, "region", "Region"),
        choice_field("target", "Target", targets, "What the attacker wants to see."),
    ]
