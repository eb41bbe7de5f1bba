"""What a run of the benchmarks works on, and which libraries it finds."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.setting import FULL, Work
from robustmri.core.arrays import Images, Labels
from robustmri.data.cohort import Cohort
from robustmri.data.loaders import load_images, load_labels
from robustmri.data.split import Split
from robustmri.evaluation.plan import evaluated_slices
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.models.backbones import build_classifier
from robustmri.models.checkpoint import check_fits, load_checkpoint, save_checkpoint
from robustmri.models.classifier import Classifier
from robustmri.verbs.prepare import prepare

LIBRARIES = {
    "torchattacks": "torchattacks",
    "foolbox": "foolbox",
    "art": "adversarial-robustness-toolbox",
    "secmlt": "secml-torch",
}
"""Module to the name that it is installed under."""


@dataclass(frozen=True)
class Inputs:
    """Networks, test images (evenly spaced over the cohort's test set) and how much to do.

    Args:
        standard: undefended.
        hardened: the same network, adversarially trained.
        paths: of the two checkpoints and the cohort, for tasks that start other processes.
        eps: radius of the single-radius tasks, linf, in image units.
        rounds: times that everyone runs.
        device: of the tasks that time a gradient step.
    """

    standard: Classifier
    hardened: Classifier
    images: Images
    labels: Labels
    paths: tuple[Path, Path, Path]
    eps: float = 0.04
    rounds: int = 3
    work: Work = FULL
    device: str = "cpu"
    say: Callable[[str], None] = lambda line: None


def is_there(library: str) -> bool:
    """Whether a contender's library can be imported; ours, without a name, always can."""
    if not library:
        return True
    if importlib.util.find_spec(library) is None:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module(library)
        except ImportError:  # Installed without what it needs.
            return False
    return True


def versions() -> dict[str, str]:
    """Of the peers, by the names that they are installed under."""
    return {
        name: metadata.version(name) if is_there(module) else "missing"
        for module, name in LIBRARIES.items()
    }


def make_small(folder: Path) -> tuple[Path, Path, Path]:
    """Two networks of random weights and a phantom cohort: enough to see that everything runs."""
    cohort = prepare("phantom:patients=18,slices=2,size=64", folder / "cohort", size=32)
    for seed, name in enumerate(("standard", "hardened")):
        network = build_classifier("resnet18-half", cohort.classes, cohort.size, seed=seed)
        save_checkpoint(network, folder / name)
    return folder / "standard", folder / "hardened", cohort.root


def read_classifier(path: Path, cohort: Cohort) -> Classifier:
    """A checkpoint's network, its parameters as they are after loading: requiring gradients."""
    classifier, checkpoint = load_checkpoint(path)
    check_fits(checkpoint, cohort.classes, cohort.size)
    return classifier


def read_images(cohort: Cohort, limit: int) -> tuple[Images, Labels]:
    """Test slices, evenly spaced, and their labels."""
    rows = evaluated_slices(Split.load(cohort.root), EvaluateSettings(limit=limit), cohort)
    return load_images(cohort, rows), load_labels(cohort, rows)
