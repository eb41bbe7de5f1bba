"""Attack every test slice, write down what happened to each, and sum it up by patient."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from robustmri.attacks import Attack, Cascade, find_entry, is_minimal, make_attack
from robustmri.attacks.minimal_eps import SmallestEps
from robustmri.core import processes
from robustmri.core.arrays import Logits
from robustmri.core.errors import DataError, SettingsError, did_you_mean
from robustmri.core.files import atomic_file, fingerprint
from robustmri.core.progress import Progress, silent
from robustmri.data.cohort import Cohort
from robustmri.data.loaders import load_images, load_labels, load_region
from robustmri.data.regions import check_region
from robustmri.data.split import Split
from robustmri.evaluation.attacked import (
    Attacked,
    attack_batch,
    probabilities,
    quick,
    verify,
    within,
    zero_gradients,
)
from robustmri.evaluation.cost import AttackCost
from robustmri.evaluation.exact import logits_of
from robustmri.evaluation.memory import Room, in_halves
from robustmri.evaluation.settings import EvaluateSettings, Job, jobs_of
from robustmri.models.classifier import Classifier
from robustmri.models.optimised import OptimisedView, Precision
from robustmri.threat.eps import Eps
from robustmri.threat.threat_model import ThreatModel

if TYPE_CHECKING:
    import pyarrow as pa

CLEAN = Job("none", None)


@dataclass(frozen=True)
class Evaluated:
    """Outcomes of every slice and attack, and what each attack cost."""

    outcomes: pa.Table
    costs: list[dict[str, Any]]
    zero_gradient_share: float


def evaluated_slices(split: Split, settings: EvaluateSettings) -> list[int]:
    """Slices to attack in the cohort's order: all, or `limit` evenly spaced, so that many patients
    take part.
    """
    rows, limit = (
        sorted(split.validation if settings.evaluated_set == "validation" else split.test),
        settings.limit,
    )
    if not limit or limit >= len(rows):
        return rows
    return [rows[int(position)] for position in np.linspace(0, len(rows) - 1, limit).round()]


def check_answerable(
    settings: EvaluateSettings, classifier: Classifier, cohort: Cohort, split: Split
) -> None:
    """Refuse, before anything is written, what would else be refused on the way.

    Raises:
        DataError: there is no slice to attack, or one without the region.
        SettingsError: a target that is no class.
    """
    for job in (CLEAN, *jobs_of(settings)):
        threat_for(job, settings, classifier)
        slices = attacked_slices(job, settings, cohort, split)
        check_region(cohort, slices, settings.region)
        if not slices:
            wanted = (
                f" of another class than the target {settings.target!r}" if settings.target else ""
            )
            raise DataError(
                f"the {settings.evaluated_set} set has no slice{wanted}. Split again: robustmri "
                "prepare, or raise --limit."
            )


def threat_for(
    job: Job, settings: EvaluateSettings, classifier: Classifier, mask: Tensor | None = None
) -> ThreatModel:
    """The threat model of one job, in image units; `mask` says where pixels may change, see
    `load_region`.
    """
    target = None
    if settings.target and job != CLEAN:
        if settings.target not in classifier.classes:
            raise SettingsError(
                f"target {settings.target!r} is no class. "
                f"{did_you_mean(settings.target, classifier.classes)}"
            )
        target = classifier.classes.index(settings.target)
    if is_minimal(job.attack):
        norms = find_entry(job.attack).norms
        norm = settings.norm if settings.norm in norms else norms[0]
        return ThreatModel(norm=norm, eps=torch.inf, target=target, mask=mask)
    eps = max((one.in_image_units(classifier.spec.std) for one in job.radii), default=0.0)
    return ThreatModel(norm=settings.norm, eps=eps, target=target, mask=mask)


def run_attacks(
    classifier: Classifier,
    cohort: Cohort,
    split: Split,
    settings: EvaluateSettings,
    folder: Path,
    *,
    identity: str,
    device: torch.device,
    progress: Progress = silent,
) -> Evaluated:
    """Every job on every shard of the evaluated set, divided between the processes that work
    together.

    Each finished shard is a file below `folder`/.shards, so that a rerun after a kill does only
    what is missing; the randomness of a shard depends on the seed, the job and the shard's number
    alone. All processes get all outcomes.

    Args:
        classifier: what is attacked.
        cohort: where the slices are.
        split: says which slices are in the evaluated set.
        settings: see `EvaluateSettings`.
        folder: result folder.
        identity: hash of the classifier's weights.
        device: where the computing is done.
        progress: told after each shard of this process.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    classifier = classifier.to(device).eval().requires_grad_(False)
    shards = (
        folder
        / ".shards"
        / fingerprint([msgspec.to_builtins(settings), identity, split.fingerprint])
    )
    work = [
        (job, number, rows)
        for job in (CLEAN, *jobs_of(settings))
        for number, rows in enumerate(
            _shards(attacked_slices(job, settings, cohort, split), settings.batch_size)
        )
    ]
    bench = _Bench(classifier, cohort, settings, device)
    paths = [shards / f"{job.name}-{number:04d}.parquet" for job, number, _ in work]
    so_far = dict.fromkeys((job for job, _, _ in work), (0, 0, 0.0))
    own, tables = range(len(work))[processes.rank() :: processes.size()], {}
    for done, place in enumerate(own):
        (job, number, rows), path = work[place], paths[place]
        if not path.exists():
            with atomic_file(path) as partial:
                pq.write_table(bench.attack(job, number, rows), partial)
        table = tables[place] = pq.read_table(path)
        seen, broken, gradients = so_far[job]
        seen, broken = (
            seen + len(rows),
            broken + len(pc.unique(table.filter(table["fooled"])["index"])),
        )
        gradients += pc.sum(table["gradients"]).as_py()
        so_far[job] = seen, broken, gradients
        told = f"{job.name}: {seen} images, {broken} broken, {gradients / seen:.1f} gradients each"
        progress("evaluation", done + 1, len(own), told)
    processes.wait_for_all()
    outcomes = pa.concat_tables(
        [
            tables[place] if place in tables else pq.read_table(path)
            for place, path in enumerate(paths)
        ]
    )
    clean = outcomes.filter(pc.equal(outcomes["attack"], CLEAN.attack))
    share = float(pc.mean(pc.cast(clean["zero_gradient"], pa.float64())).as_py())
    return Evaluated(outcomes.drop_columns(["zero_gradient"]), costs_of(outcomes, settings), share)


def clear_shards(folder: Path) -> None:
    """Remove the shards of an evaluation whose merged result is written."""
    shutil.rmtree(folder / ".shards", ignore_errors=True)


def attacked_slices(
    job: Job, settings: EvaluateSettings, cohort: Cohort, split: Split
) -> list[int]:
    """Slices of one job; one that is of the target class already cannot be made so."""
    rows = evaluated_slices(split, settings)
    if settings.target and job != CLEAN:
        rows = [row for row in rows if cohort.cases[row].label != settings.target]
    if is_minimal(job.attack) and settings.minimal_limit and settings.minimal_limit < len(rows):
        rows = [
            rows[int(position)]
            for position in np.linspace(0, len(rows) - 1, settings.minimal_limit).round()
        ]
    return rows


def _shards(rows: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


@dataclass(frozen=True)
class _Bench:
    """What is the same for every shard."""

    classifier: Classifier
    cohort: Cohort
    settings: EvaluateSettings
    device: torch.device
    room: Room = field(default_factory=Room)

    @cached_property
    def fast(self) -> OptimisedView:
        """The classifier as budget attacks search it."""
        return self._view(None if self.settings.precision == "auto" else self.settings.precision)

    @cached_property
    def exact(self) -> OptimisedView:
        """In float32: the nearest fooling image lies on the boundary, where low precision would
        miss it.
        """
        return self._view("fp32")

    def _view(self, precision: Precision | None) -> OptimisedView:
        size = self.classifier.spec.size
        example = torch.zeros(2, 1, size, size, device=self.device)
        return OptimisedView(
            self.classifier, example, precision=precision, compiled=self.settings.compile
        )

    def attack(self, job: Job, number: int, rows: list[int]) -> pa.Table:
        """Outcomes of one job on one shard."""
        import pyarrow as pa

        seed = int(fingerprint([self.settings.seed, job.name, number]), 16) >> 1
        generator = torch.Generator().manual_seed(seed)
        return pa.concat_tables(
            in_halves(lambda part: self._attack(job, part, generator), rows, generator, self.room)
        )

    def _attack(self, job: Job, rows: Sequence[int], generator: torch.Generator) -> pa.Table:
        import pyarrow as pa

        images = load_images(self.cohort, rows).to(self.device)
        labels = load_labels(self.cohort, rows).to(self.device)
        region = load_region(self.cohort, rows, self.settings.region)
        mask = None if region is None else region.to(self.device)
        threat = threat_for(job, self.settings, self.classifier, mask)
        clean, zero = logits_of(self.classifier, images), torch.zeros(len(rows), dtype=torch.bool)
        search = self.exact if is_minimal(job.attack) else self.fast
        cost, members = AttackCost(len(rows), self.settings.limits), [""]
        if job == CLEAN:
            attacked = verify(self.classifier, images, images, labels, threat, clean)
            zero = zero_gradients(self.classifier, images, labels)
        else:
            attack = make_attack(job.attack, **self.settings.options.get(job.attack, {}))
            members = [*attack.members, ""] if isinstance(attack, Cascade) else members
            if job.curve:
                radii = sorted(
                    {one.in_image_units(self.classifier.spec.std) for one in job.curve} - {0.0}
                )
                attack = SmallestEps(quick(attack), tuple(radii)) if radii else attack
            attacked = attack_batch(
                attack,
                self.classifier,
                search,
                images,
                labels,
                threat,
                generator=generator,
                cost=cost,
                clean=clean,
            )
        parts = [(job, threat, attacked)]
        if job.curve:
            untouched = verify(self.classifier, images, images, labels, threat, clean)
            alone = [Job(job.attack, eps) for eps in job.curve]
            threats = [threat_for(one, self.settings, self.classifier, mask) for one in alone]
            shown = [within(float(at.eps), attacked, untouched, at.norm) for at in threats]
            parts = list(zip(alone, threats, shown, strict=True))
        right = ~threat.fooled(clean, labels)
        tables = []
        for one, at, outcome in parts:
            columns = self._columns(one, rows, at, clean, outcome)
            columns["broken_by"] = [members[place] for place in outcome.broken_by.tolist()]
            columns["zero_gradient"] = zero.tolist()
            # One search for a whole curve: each of its radii bears an equal part.
            columns["forwards"] = [cost.forwards / len(rows) / len(parts)] * len(rows)
            columns["gradients"] = [cost.gradients / len(rows) / len(parts)] * len(rows)
            # A success within eps cannot be bettered; a nearest image can.
            columns["cut_short"] = (
                right & cost.cut_short & (~outcome.fooled | is_minimal(job.attack))
            ).tolist()
            tables.append(pa.table(columns))
        return pa.concat_tables(tables)

    def _columns(
        self, job: Job, rows: Sequence[int], threat: ThreatModel, clean: Logits, attacked: Attacked
    ) -> dict[str, Any]:
        cases = [self.cohort.cases[row] for row in rows]
        n, classes = len(cases), self.classifier.classes
        # On the CPU, where looking at them one by one does not stop a GPU each time.
        before, after = probabilities(clean).cpu(), probabilities(attacked.logits).cpu()
        eps = job.eps or Eps(0.0)
        return {
            "case_id": [case.case_id for case in cases],
            "index": list(rows),
            "patient_id": [case.patient_id for case in cases],
            "group": [case.group for case in cases],
            "label": [case.label for case in cases],
            "plane": [case.plane for case in cases],
            "attack": [job.attack] * n,
            "norm": ["" if job == CLEAN else threat.norm] * n,
            "eps": [float("inf") if is_minimal(job.attack) else eps.value] * n,
            "eps_units": [eps.units] * n,
            "eps_image": [float(threat.eps)] * n,
            "target": ["" if job == CLEAN else self.settings.target] * n,
            "clean_prediction": [classes[k] for k in clean.argmax(1).tolist()],
            "clean_confidence": before.amax(1).tolist(),
            "prediction": [classes[k] for k in attacked.logits.argmax(1).tolist()],
            "confidence": after.amax(1).tolist(),
            "label_confidence": [after[k, case.class_index].item() for k, case in enumerate(cases)],
            "distance_linf": attacked.distance_linf.tolist(),
            "distance_l2": attacked.distance_l2.tolist(),
            "distance_l1": attacked.distance_l1.tolist(),
            "distance_l0": attacked.distance_l0.tolist(),
            "fooled": attacked.fooled.tolist(),
            "verified": attacked.verified.tolist(),
        }


def costs_of(outcomes: pa.Table, settings: EvaluateSettings) -> list[dict[str, Any]]:
    """Settings of each attack, and what it spent per image."""
    import pyarrow.compute as pc

    costs = []
    for job in jobs_of(settings):
        rows = outcomes.filter(pc.equal(outcomes["attack"], job.attack))
        if job.radii:
            same = [
                pc.and_(pc.equal(rows["eps"], e.value), pc.equal(rows["eps_units"], e.units))
                for e in job.radii
            ]
            rows = rows.filter(functools.reduce(pc.or_, same))
        costs.append(
            {
                "attack": job.attack,
                "eps": ", ".join(map(str, job.radii)) or None,
                "settings": _settings_of(
                    make_attack(job.attack, **settings.options.get(job.attack, {}))
                ),
                "slices": rows.num_rows // max(len(job.radii), 1),
                "gradients_per_image": round(
                    pc.mean(rows["gradients"]).as_py() * max(len(job.radii), 1), 2
                ),
                "forwards_per_image": round(
                    pc.mean(rows["forwards"]).as_py() * max(len(job.radii), 1), 2
                ),
            }
        )
    return costs


def _settings_of(attack: Attack) -> dict[str, Any]:
    made: Any = attack  # One of the user's own may be any callable.
    return {"attack": type(made).__name__, **(asdict(made) if is_dataclass(made) else {})}  # type: ignore[arg-type]
