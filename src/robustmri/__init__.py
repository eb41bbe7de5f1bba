"""Measure how easily a medical-image classifier is fooled, repair it, and report both.

import robustmri
robustmri.prepare("scans", "cohort")
robustmri.train("cohort", "standard")
robustmri.evaluate("standard", "cohort", "before")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "prepare": "verbs.prepare",
    "train": "verbs.train",
    "harden": "verbs.train",
    "evaluate": "verbs.evaluate",
    "pool": "verbs.pool",
    "demo": "verbs.reproduce",
    "cross_validate": "verbs.cross_validate",
    "ablate": "verbs.ablate",
    "reproduce": "verbs.reproduce",
    "bundle": "verbs.bundle",
    "run_bundle": "verbs.run_bundle",
    "unpack": "verbs.unpack",
    "unpack_travelled": "verbs.unpack",
    "write_report": "report",
    "Cohort": "data.cohort",
    "Split": "data.split",
    "Classifier": "models.classifier",
    "ClassifierSpec": "models.classifier",
    "load_checkpoint": "models.checkpoint",
    "save_checkpoint": "models.checkpoint",
    "ThreatModel": "threat.threat_model",
    "parse_eps": "threat.eps",
    "PGD": "attacks",
    "APGD": "attacks",
    "Cascade": "attacks",
    "standard": "attacks",
    "CarliniWagnerL2": "attacks",
    "DDN": "attacks",
    "DeepFool": "attacks",
    "ElasticNet": "attacks",
    "SparsePGD": "attacks",
    "SPSA": "attacks",
    "HopSkipJump": "attacks",
    "Universal": "attacks",
    "add_universal": "attacks",
    "learn_universal": "attacks",
    "Square": "attacks",
    "Transfer": "attacks",
    "FMN": "attacks",
    "fgsm": "attacks",
    "bim": "attacks",
    "cw": "attacks",
    "load_recipe": "recipes",
    "load_result": "results.schema",
    "RobustMRIError": "core.errors",
}

__all__ = [
    "APGD",
    "CarliniWagnerL2",
    "Cascade",
    "Classifier",
    "ClassifierSpec",
    "Cohort",
    "DDN",
    "DeepFool",
    "ElasticNet",
    "FMN",
    "HopSkipJump",
    "PGD",
    "RobustMRIError",
    "SparsePGD",
    "SPSA",
    "Split",
    "Square",
    "ThreatModel",
    "Transfer",
    "Universal",
    "ablate",
    "add_universal",
    "bim",
    "bundle",
    "cross_validate",
    "cw",
    "demo",
    "evaluate",
    "fgsm",
    "harden",
    "learn_universal",
    "load_checkpoint",
    "load_recipe",
    "load_result",
    "parse_eps",
    "pool",
    "prepare",
    "reproduce",
    "run_bundle",
    "save_checkpoint",
    "standard",
    "train",
    "unpack",
    "unpack_travelled",
    "write_report",
]

if TYPE_CHECKING:
    from robustmri.attacks import (
        APGD,
        DDN,
        FMN,
        PGD,
        CarliniWagnerL2,
        Cascade,
        DeepFool,
        ElasticNet,
        SparsePGD,
        Square,
        bim,
        cw,
        fgsm,
        standard,
    )
    from robustmri.attacks.hop_skip_jump import HopSkipJump
    from robustmri.attacks.spsa import SPSA
    from robustmri.attacks.transfer import Transfer
    from robustmri.attacks.universal import Universal, add_universal, learn_universal
    from robustmri.core.errors import RobustMRIError
    from robustmri.data.cohort import Cohort
    from robustmri.data.split import Split
    from robustmri.models.checkpoint import load_checkpoint, save_checkpoint
    from robustmri.models.classifier import Classifier, ClassifierSpec
    from robustmri.recipes import load_recipe
    from robustmri.report import write_report
    from robustmri.results.schema import load_result
    from robustmri.threat.eps import parse_eps
    from robustmri.threat.threat_model import ThreatModel
    from robustmri.verbs.ablate import ablate
    from robustmri.verbs.bundle import bundle
    from robustmri.verbs.cross_validate import cross_validate
    from robustmri.verbs.evaluate import evaluate
    from robustmri.verbs.pool import pool
    from robustmri.verbs.prepare import prepare
    from robustmri.verbs.reproduce import demo, reproduce
    from robustmri.verbs.run_bundle import run_bundle
    from robustmri.verbs.train import harden, train
    from robustmri.verbs.unpack import unpack, unpack_travelled


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for: the command line must answer before torch is
    there.
    """
    if name not in _HOME:
        raise AttributeError(f"module 'robustmri' has no attribute {name!r}")
    return getattr(import_module(f"robustmri.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
