"""Pages of the site that are made: reference, settings, checks, gallery of attacks, notebook."""

from __future__ import annotations

import ast
import base64
import io
import json
from itertools import groupby
from pathlib import Path

import mkdocs_gen_files
import msgspec
import numpy as np
import torch
from PIL import Image

import robustmri
from robustmri.attacks import ATTACKS, make_attack
from robustmri.core.settings import bounds_of, choices_of, help_of
from robustmri.data.cohort import Cohort
from robustmri.data.loaders import load_images, load_labels
from robustmri.data.split import Split
from robustmri.evaluation import (
    budget_checks,
    masking_checks,
    order_checks,
    shortcut_checks,
    study_checks,
)
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.models.checkpoint import load_checkpoint
from robustmri.recipes import PrepareSettings
from robustmri.threat.threat_model import ThreatModel
from robustmri.training.settings import TrainSettings

PACKAGE = Path(robustmri.__file__).parent
ROOMS = {
    "data": "D: who was scanned.",
    "models": "f_theta: the classifier.",
    "threat": "S(x): what an attacker may change.",
    "losses": "What is climbed and descended.",
    "attacks": "max: the search for the worst image.",
    "training": "min: training on the worst images.",
    "evaluation": "E: outcomes, metrics, intervals and checks.",
    "report": "One page for three readers.",
    "results": "What an evaluation writes and a report reads.",
    "web": "The workbench: a local page on a folder of results.",
    "verbs": "Files in, files out.",
    "recipes": "Complete, named settings.",
    "core": "What every room stands on.",
}
CHEAP = {
    "universal": {"epochs": 3},
    "square": {"queries": 300},
    "spsa": {"steps": 10, "samples": 8},
    "hop-skip-jump": {"steps": 4, "samples": 50},
    "standard": {"steps": 10, "queries": 100},
    "cw-l2": {"steps": 20, "searches": 3},
    "ead": {"steps": 20, "searches": 3},
}
"""Settings that make a picture in a second; the defaults stand on the page of attacks."""
CACHE = Path("build/gallery")


def write_reference() -> None:
    """A page for each room, its modules by name; and one of the public names."""
    for room, about in ROOMS.items():
        with mkdocs_gen_files.open(f"reference/{room}.md", "w") as page:
            print(f"# {room}\n\n{about}\n", file=page)
            place = PACKAGE / room
            files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
            for file in files:
                parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
                name = ".".join(parts).removesuffix(".__init__")
                documented = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
                shown = file.name != "__init__.py" or room == "recipes"
                if documented and shown:
                    print(f"## {name.removeprefix('robustmri.')}\n", file=page)
                    print(f"::: {name}\n    options:\n      show_root_heading: false\n", file=page)
    with mkdocs_gen_files.open("reference/index.md", "w") as page:
        print(
            "# Public names\n\nImport them from `robustmri`.\n",
            file=page,
        )
        names = sorted(robustmri.__all__, key=lambda name: (home_of(name), name))
        for home, group in groupby(names, key=home_of):
            room = home.split(".")[1]
            print(f"\n**{home.removeprefix('robustmri.')}** ([{room}]({room}.md))\n", file=page)
            for name in group:
                value = getattr(robustmri, name)
                first = " ".join((value.__doc__ or "").strip().split("\n\n")[0].split())
                print(f"- `{name}`: {first}", file=page)


def home_of(name: str) -> str:
    """Module of a public name."""
    return robustmri._HOME[name]


def picture_classifier() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """A small network trained on phantoms, and three slices that it names rightly."""
    if not (CACHE / "run" / "checkpoint").is_dir():
        robustmri.prepare("phantom:patients=36,slices=4,size=96", CACHE / "cohort", size=64)
        settings = {"backbone": "resnet18-half", "epochs": 10, "batch_size": 16, "augment": "none"}
        robustmri.train(CACHE / "cohort", CACHE / "run", learning_rate=0.02, **settings)
    classifier, _ = load_checkpoint(CACHE / "run")
    cohort = Cohort.open(CACHE / "cohort")
    rows = sorted(Split.load(cohort.root).test)
    images, labels = load_images(cohort, rows), load_labels(cohort, rows)
    with torch.no_grad():
        right = torch.nonzero(classifier(images).argmax(1) == labels)[:, 0][:3]
    return classifier, images[right], labels[right]


def strip(images: torch.Tensor, attacked: torch.Tensor) -> bytes:
    """The slice, its change (grey is none, enlarged to the largest) and the attacked slice."""
    change = attacked - images
    scale = change.abs().amax().clamp_min(1e-6)
    planes = [images[0, 0], 0.5 + 0.5 * change[0, 0] / scale, attacked[0, 0]]
    row = torch.cat([plane.clamp(0, 1) for plane in planes], 1)
    picture = Image.fromarray(np.asarray((255 * row).round().byte()))
    content = io.BytesIO()
    picture.resize((3 * 128, 128), Image.Resampling.NEAREST).save(content, "PNG", optimize=True)
    return content.getvalue()


def write_gallery() -> None:
    """A row for each attack: what it is, and what it does to a phantom."""
    classifier, images, labels = picture_classifier()
    with mkdocs_gen_files.open("gallery.md", "w") as page:
        print("---\nhide:\n  - toc\n---\n# Gallery of attacks\n", file=page)
        print(
            "Each on the same phantom slice: the slice, the change (enlarged, grey is none), and "
            "the attacked slice. Budget attacks have eps 0.04 in their first norm (2 in l2); the "
            "nearest image has no radius. No slice here shows a person. Settings: "
            "[attacks](attacks.md).\n",
            file=page,
        )
        heads = ("attack", "norms", "kind", "asks for", "paper", "phantom")
        print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", file=page)
        for name, known in ATTACKS.items():
            facts = known.facts
            norm = facts.norms[0]
            threat = ThreatModel(norm, 0.04 if norm == "linf" else 2.0)
            attack = make_attack(name, **CHEAP.get(name, {}))
            generator = torch.Generator().manual_seed(0)
            attacked = attack(classifier, images, labels, threat, generator=generator)
            with mkdocs_gen_files.open(f"gallery/{name}.png", "wb") as file:
                file.write(strip(images, attacked))
            kind = "nearest image" if facts.minimal else "within eps"
            cells = (
                f"**{facts.title}**<br>`{name}`",
                ", ".join(facts.norms),
                kind,
                facts.knowledge,
                facts.paper,
                f"![{facts.title} on a phantom](gallery/{name}.png)",
            )
            print(f"| {' | '.join(cells)} |", file=page)


def write_tutorial() -> None:
    """The notebook as a page, with the outputs that it was stored with."""
    cells = json.loads(Path("docs/tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    with mkdocs_gen_files.open("tutorial.md", "w") as page:
        for number, cell in enumerate(cells):
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                print(f"{source}\n", file=page)
                continue
            print(f"```python\n{source}\n```\n", file=page)
            for output in cell["outputs"]:
                if output["output_type"] == "stream":
                    print(f"```text\n{''.join(output['text']).rstrip()}\n```\n", file=page)
                elif picture := output["data"].get("image/png"):
                    name = f"tutorial/{number}.png"
                    with mkdocs_gen_files.open(name, "wb") as file:
                        file.write(base64.b64decode(picture))
                    print(f"![Output of the code above]({name})\n", file=page)
        print("[This page as a notebook](tutorial.ipynb)", file=page)


def write_settings() -> None:
    """Every setting of every stage, from its field."""
    stages = {"prepare": PrepareSettings, "train, harden": TrainSettings}
    stages["evaluate"] = EvaluateSettings
    with mkdocs_gen_files.open("settings.md", "a") as page:
        print(file=page)
        for stage, kind in stages.items():
            print(f"## {stage}\n\n| setting | default | meaning |\n|---|---|---|", file=page)
            defaults = kind()
            for field in msgspec.structs.fields(kind):
                choices = choices_of(kind, field.name)
                said = help_of(kind, field.name) + (f": {', '.join(choices)}" if choices else "")
                default = msgspec.json.encode(getattr(defaults, field.name)).decode()
                default = default.replace("|", "\\|")
                bounds = bounds_of(kind, field.name)
                told = said.replace("|", "\\|") + (f" ({bounds})" if bounds else "")
                print(f"| `{field.name}` | `{default}` | {told} |", file=page)
            print(file=page)


def write_checks() -> None:
    """What each check asks, from its docstring."""
    with mkdocs_gen_files.open("gallery-of-checks.md", "w") as page:
        print("# Gallery of checks\n\nWhat they mean: [checks](checks.md).\n", file=page)
        print("| check | asks whether |\n|---|---|", file=page)
        for module in (budget_checks, order_checks, masking_checks, shortcut_checks, study_checks):
            for name, function in vars(module).items():
                if name.startswith("check_") and function.__module__ == module.__name__:
                    said = " ".join((function.__doc__ or "").split("\n\n")[0].split())
                    print(f"| `{name}` | {said} |", file=page)


write_reference()
write_settings()
write_checks()
write_gallery()
write_tutorial()
