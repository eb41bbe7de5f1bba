"""The result file of an evaluation, `robustness.json`: typed, versioned, the only input of a
report.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from robustmri.core.errors import ResultError
from robustmri.core.files import check_name, kind_of_folder, read_json, sha256_of, write_struct
from robustmri.results.detection import DetectorResult
from robustmri.results.patients import PatientFigures

SCHEMA_VERSION = 2
AGAIN = "Evaluate again."
Status = Literal["pass", "warn", "fail"]
ENOUGH = "enough patients for the claim"
"""The check by which a headline says that there were few."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One number with its interval.

    `eps` is as the user gave it, in `eps_units`; `eps_image` is the same in units of the [0, 1]
    range. Both are None where the attack has no radius (the clean row, minimal-norm attacks).
    `only` counts the slices, right untouched, that no other attack of the same budget fooled; None
    where there was no other on the same slices. `broken_by` counts for a suite the slices that each
    of its members broke, in their order: a member met what those before it left.
    """

    attack: str
    norm: str
    eps: float | None
    eps_units: Literal["image", "normalised"]
    eps_image: float | None
    unit: Literal["slice", "patient"]
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
    interval: str
    target: str = ""
    median_distance: float | None = None
    only: int | None = None
    broken_by: dict[str, int] = {}


class AttackRun(msgspec.Struct, frozen=True, kw_only=True):
    """An attack as it was run: what it is, its settings, and what it spent per image.

    The facts are those of `attacks.protocol.Facts`. `eps` lists the radii as the user gave them;
    None where there is none. `norm` is the physical threat that it searched, or `CORRUPTION`; empty
    for an attack in a norm.
    """

    attack: str
    title: str
    paper: str
    doi: str = ""
    minimal: bool
    iterative: bool
    knowledge: Literal["gradients", "scores", "decisions", "nothing"]
    members: dict[str, str] = {}
    member_knowledge: dict[str, Literal["gradients", "scores", "decisions", "nothing"]] = {}
    eps: str | None
    settings: dict[str, Any]
    slices: int
    gradients_per_image: float
    forwards_per_image: float
    norm: str = ""


class NormFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How to speak of a norm, or of what stands in its place; see `threat.norms.Norm` and
    `threat.transforms.Transform`.

    With `per_pixel` a radius bounds each pixel by itself, and can be said in grey levels. `unit` is
    what a radius counts; empty for image units, or a mere number.
    """

    title: str
    meaning: str
    per_pixel: bool
    kind: Literal["norm", "physical", "corruption"] = "norm"
    unit: str = ""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A rigour check that the tool ran by itself."""

    name: str
    status: Status
    detail: str
    case_ids: list[str] = []


class Confusion(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of slices; rows are true classes, columns predicted ones."""

    attack: str
    norm: str
    eps: float | None
    eps_units: str
    counts: list[list[int]]


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A slice before and after an attack; `position` is its row in `examples.npz`."""

    case_id: str
    patient_id: str
    label: str
    clean_prediction: str
    clean_confidence: float
    attack: str
    norm: str
    eps: float
    eps_units: str
    prediction: str
    confidence: float
    distance_linf: float
    position: int


class RegionResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one attack does that may change one part of the slices only.

    Attributes:
        region: a key of `data.regions.REGIONS`, with its `meaning` in words.
        attack: with norm, eps, eps_units, eps_image and target as in `Result`.
        n: slices, right untouched, of `n_patients` patients.
        turned: share of them that the attack turned, with its 95 % interval by patient.
        patients_turned: share of patients of whom it turned a slice.
        area: mean share of the pixels that may change.
        lesion_energy: mean share of the change's energy that lies in the lesion; None without
            outlines.
        lesion_area: mean share of the pixels that are in the lesion: what chance would give.
    """

    region: str
    meaning: str
    attack: str
    norm: str
    eps: float
    eps_units: Literal["image", "normalised"]
    eps_image: float
    target: str = ""
    n: int
    n_patients: int
    turned: float
    ci_low: float
    ci_high: float
    interval: str
    patients_turned: float
    area: float
    lesion_energy: float | None
    lesion_area: float | None


class SaliencyResult(msgspec.Struct, frozen=True, kw_only=True):
    """Where a classifier looks, by one method of attribution.

    Attributes:
        method: its name, with `title` and `paper`.
        n: slices of `n_patients` patients.
        in_lesion: mean share of the attribution that lies in the lesion, with its 95 % interval by
            patient.
        chance: mean share of the pixels that are in the lesion.
        in_lesion_shuffled: the same of a network whose weights were shuffled.
        likeness: mean rank correlation between the maps of both networks: a method whose maps stay
            alike shows the slice, and not what the network has learnt. An empty map of the shuffled
            network counts as 0.
    """

    method: str
    title: str
    paper: str
    n: int
    n_patients: int
    in_lesion: float
    ci_low: float
    ci_high: float
    interval: str
    chance: float
    in_lesion_shuffled: float
    likeness: float


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """How little it takes to turn an answer, in one norm: of each slice that is right untouched the
    smallest change that is known to.

    Attributes:
        norm: in which the changes are measured; sizes are in image units.
        n: slices, right untouched and attacked, of `n_patients` patients.
        never: how many of them no attack turned.
        quantiles: share of slices to the size that turns so many; None where fewer were turned.
        ci_low, ci_high: 95 % interval of the median, by patient; None where it is beyond what was
            turned.
        patients: the same shares of patients, of each the most fragile slice.
        nearest: true class to what it is called instead, with the number of slices.
        ssim: median over the slices that were turned, as the others below.
        psnr: in decibels.
        grey_levels: largest change of any pixel, of 255.
    """

    norm: str
    n: int
    n_patients: int
    never: int
    quantiles: dict[str, float | None]
    ci_low: float | None
    ci_high: float | None
    patients: dict[str, float | None]
    nearest: dict[str, dict[str, int]]
    ssim: float | None
    psnr: float | None
    grey_levels: float | None


class CohortFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Where the images came from, and their size and channels."""

    name: str
    synthetic: bool
    classes: list[str]
    size: int | tuple[int, int]
    channels: Literal[1, 3] = 1
    intensity: str
    groups: str
    fingerprint: str
    n_cases: int
    n_patients: int
    left_out: int


class SplitFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Which cases were evaluated, and what the way of splitting does to the numbers.

    `sets` has the slices and the patients of each set, of those that have any; it is empty where
    several splits were pooled.
    """

    kind: str
    seed: int
    fold: int | None
    note: str
    fingerprint: str
    evaluated_set: str
    n_slices: int
    n_patients: int
    leakage: list[Check]
    sets: dict[str, tuple[int, int]] = {}


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was attacked.

    `identity` is the hash of all that decides its answers, by which what was hardened from it knows
    it; empty where that of its weights says as much. Of a classifier from elsewhere `source` is the
    file that it was made from, `route` how, in words, `guessed` what the file did not say, `checks`
    what was found of it at its import, and `checked_on` the fingerprint of the cohort whose
    labelled slices it was tried on. With `black_box` it offers no gradient. `split` is the
    fingerprint of the split that it was trained on, empty where that is not known.
    """

    name: str
    backbone: str
    objective: str
    weights: str
    checkpoint_sha256: str
    training: dict[str, Any]
    identity: str = ""
    source: str = ""
    route: str = ""
    guessed: list[str] = []
    checks: list[Check] = []
    checked_on: str = ""
    black_box: bool = False
    split: str = ""


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """What needs no network reaches on the same slices; `certified` results are lower bounds that
    follow without an attack.

    `known` is the number of training slices, of each part where several were pooled; `side` the
    height and width in pixels at which slices were compared.
    """

    name: str
    known: list[int]
    side: int
    results: list[Result]


class Asked(msgspec.Struct, frozen=True):
    """What readers of a result ask of the settings that it was made with."""

    norm: str = "linf"
    threat: str = ""
    target: str = ""
    region: str = "image"
    max_gradients: int = 0
    max_forwards: int = 0
    max_seconds: float = 0.0
    eps: tuple[str, ...] = ()
    curve: tuple[str, ...] = ()
    curve_attack: str = ""
    classes: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0


class RobustnessReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an evaluation found out.

    `files` holds the sha256 of each file beside it, by name. `regions`, `saliency`, `sensitivity`
    and `detection` are empty where nobody asked, and in results of earlier releases.
    """

    title: str
    model: ModelFacts
    cohort: CohortFacts
    split: SplitFacts
    threat: list[str]
    norms: dict[str, NormFacts]
    attacks: list[AttackRun]
    results: list[Result]
    checks: list[Check]
    confusions: list[Confusion]
    examples: list[Example]
    settings: dict[str, Any]
    provenance: dict[str, Any]
    files: dict[str, str] = {}
    baseline: Baseline | None = None
    patients: PatientFigures | None = None
    regions: list[RegionResult] = []
    saliency: list[SaliencyResult] = []
    sensitivity: list[Sensitivity] = []
    detection: list[DetectorResult] = []
    schema_version: int = SCHEMA_VERSION

    @property
    def asked(self) -> Asked:
        """Of `settings`, what its readers ask for.

        Raises:
            ResultError: it is of another type.
        """
        try:
            return msgspec.convert(self.settings.get("evaluate", {}), Asked)
        except msgspec.ValidationError as wrong:
            raise ResultError(f"settings.evaluate is damaged ({wrong}). {AGAIN}") from wrong

    def __repr__(self) -> str:
        worst = min((number.accuracy for number in self.results), default=math.nan)
        return (
            f"RobustnessReport {self.title!r}: {self.model.name}, {len(self.attacks)} attacks on "
            f"{self.split.n_slices} slices of {self.split.n_patients} patients, lowest accuracy "
            f"{worst:.1%}"
        )

    def _repr_html_(self) -> str:
        """A small table, for notebooks."""
        titles = {run.attack: run.title for run in self.attacks}
        titles |= {"none": "No attack", "worst": "Worst case"}
        rows = [
            (
                titles.get(number.attack, number.attack),
                "" if number.eps is None else f"{number.norm} {number.eps:.4g}",
                f"{number.accuracy:.1%}",
                f"{number.ci_low:.1%} to {number.ci_high:.1%}",
            )
            for number in self.results
            if number.unit == "slice"
        ]
        return html_table(("Attack", "Eps", "Accuracy", "95 % interval"), rows)


class _Version(msgspec.Struct, frozen=True):
    schema_version: Any = None


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain table in HTML; what is in the cells is text.

    >>> html_table(["a"], [["<b>"]])
    '<table><tr><th>a</th></tr><tr><td>&lt;b&gt;</td></tr></table>'
    """

    def line(cells: Sequence[str], tag: str) -> str:
        inner = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
        return f"<tr>{inner}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table>{line(heads, 'th')}{body}</table>"


def suites_of(attacks: Sequence[AttackRun]) -> dict[str, list[str]]:
    """Members of each suite among the attacks, in their order."""
    return {run.attack: list(run.members) for run in attacks if run.members}


def save_result(result: RobustnessReport, folder: Path | str) -> Path:
    """Write `folder/robustness.json` atomically and return its path."""
    path = Path(folder) / "robustness.json"
    write_struct(path, result)
    return path


def load_result(folder: Path | str) -> RobustnessReport:
    """Read `folder/robustness.json`.

    Raises:
        ResultError: no such file, another schema version, fields that do not fit, or a file
            beside it that was changed since.
    """
    path = Path(folder) / "robustness.json"
    if not path.is_file():
        if kind := kind_of_folder(folder):
            raise ResultError(
                f"{folder} is {kind}, not a result: it holds no robustness.json. Name the folder "
                "that `evaluate` made."
            )
        raise ResultError(f"{folder} holds no robustness.json. Make it with: robustmri evaluate.")
    version = read_json(path, _Version, error=ResultError, again=AGAIN).schema_version
    if version != SCHEMA_VERSION:
        raise ResultError(
            f"{path} has schema version {str(version)[:20]}, this release reads {SCHEMA_VERSION}. "
            "Evaluate again with it."
        )
    result: RobustnessReport = read_json(path, RobustnessReport, error=ResultError, again=AGAIN)
    try:
        _ = result.asked
    except ResultError as wrong:
        raise ResultError(f"{path}: {wrong}") from wrong
    if unknown := {number.norm for number in result.results if number.norm} - set(result.norms):
        raise ResultError(f"{path} does not say what {sorted(unknown)} is. Evaluate again.")
    for name, digest in result.files.items():
        beside = path.with_name(check_name(name, "a file beside a result"))
        if beside.is_file() and sha256_of(beside) != digest:
            raise ResultError(
                f"{beside} was changed after {path.name} was written (its sha256 differs). "
                "Evaluate again."
            )
    return result


def hash_files(folder: Path | str, names: Sequence[str]) -> dict[str, str]:
    """For `RobustnessReport.files`: those of the names that are there."""
    paths = [Path(folder) / name for name in names]
    return {path.name: sha256_of(path) for path in paths if path.is_file()}
