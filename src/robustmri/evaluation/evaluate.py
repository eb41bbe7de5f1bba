"""Attack every test slice, and write down what happened to each."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch

from robustmri.attacks import Cascade
from robustmri.attacks.cascade import knows_norm
from robustmri.attacks.minimal_eps import SmallestEps
from robustmri.attacks.protocol import Knowledge
from robustmri.core.arrays import Images, Labels, Logits
from robustmri.core.files import fingerprint
from robustmri.core.progress import Progress, silent
from robustmri.data.cohort import Cohort
from robustmri.data.corruptions import CORRUPTIONS, corrupt
from robustmri.data.loaders import load_images, load_labels, load_masks
from robustmri.data.split import Split
from robustmri.evaluation.attacked import (
    Attacked,
    attack_batch,
    corrupted,
    probabilities,
    quick,
    verify,
    within,
    zero_gradients,
)
from robustmri.evaluation.cost import AttackCost
from robustmri.evaluation.exact import logits_of
from robustmri.evaluation.halving import Room, in_halves
from robustmri.evaluation.plan import Plan, make_plan
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.evaluation.shards import divide, run_shards, shards_of
from robustmri.evaluation.trial import NOTHING, Trial
from robustmri.evaluation.visibility import share_in, structural_similarity
from robustmri.models.classifier import Classifier
from robustmri.models.optimised import OptimisedView, Precision
from robustmri.results.outcomes import table_of
from robustmri.results.schema import AttackRun
from robustmri.threat.eps import Eps
from robustmri.threat.norms import NORMS
from robustmri.threat.threat_model import ThreatModel

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Evaluated:
    """Outcomes of every slice and attack, and what each attack is and cost."""

    outcomes: pa.Table
    attacks: list[AttackRun]
    zero_gradient_share: float | None


def run_attacks(
    classifier: Classifier,
    cohort: Cohort,
    split: Split,
    settings: EvaluateSettings,
    folder: Path,
    *,
    identity: str,
    device: torch.device,
    plan: Plan | None = None,
    progress: Progress = silent,
) -> Evaluated:
    """Every trial on every shard of the evaluated set, divided between the processes that work
    together.

    Each finished shard is a file below `folder`/.shards, so that a rerun after a kill does only
    what is missing; the randomness of a shard depends on the seed, the trial and the shard's number
    alone. All processes get all outcomes.

    Args:
        classifier: what is attacked.
        cohort: where the slices are.
        split: says which slices are in the evaluated set.
        settings: see `EvaluateSettings`.
        folder: result folder.
        identity: hash of the classifier's weights.
        device: where the computing is done.
        plan: what is tried, if it has been made already.
        progress: told after each shard of this process.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    classifier = classifier.to(device).eval().requires_grad_(False)
    shards = shards_of(folder, [msgspec.to_builtins(settings), identity, split.fingerprint])
    plan = plan or make_plan(settings, classifier, cohort, split)
    work = [
        (trial, number, rows)
        for trial in plan.trials
        for number, rows in enumerate(divide(trial.rows, settings.batch_size))
    ]
    runner = ShardRunner(classifier, cohort, plan, device)
    paths = [shards / f"{trial.name}-{number:04d}.parquet" for trial, number, _ in work]
    so_far = dict.fromkeys((trial.name for trial in plan.trials), (0, 0, 0.0))

    def tell(place: int, table: pa.Table, done: int, of: int) -> None:
        trial, _, rows = work[place]
        seen, broken, gradients = so_far[trial.name]
        fooled = table.filter(table["fooled"])["index"]
        seen, broken = seen + len(rows), broken + len(pc.unique(fooled))
        gradients += pc.sum(table["gradients"]).as_py()
        so_far[trial.name] = seen, broken, gradients
        told = (
            f"{trial.name}: {seen} images, {broken} broken, {gradients / seen:.1f} gradients each"
        )
        progress("evaluation", done, of, told)

    outcomes = run_shards(paths, lambda place: runner.attack(*work[place]), tell)
    clean = outcomes.filter(pc.equal(outcomes["attack"], NOTHING.name))
    share = None
    if classifier.spec.gradients:
        share = float(pc.mean(pc.cast(clean["zero_gradient"], pa.float64())).as_py())
    return Evaluated(
        outcomes.drop_columns(["zero_gradient"]), describe_attacks(plan, outcomes), share
    )


@dataclass(frozen=True)
class ShardRunner:
    """Runs a trial on a shard; the views of the classifier are the same for all of them."""

    classifier: Classifier
    cohort: Cohort
    plan: Plan
    device: torch.device
    room: Room = field(default_factory=Room)
    known: dict[tuple[int, ...], Logits] = field(default_factory=dict)

    def clean(self, rows: Sequence[int], images: Images) -> Logits:
        """The original's logits of untouched slices, asked for once: each trial begins with them.

        Kept by batch, since the last bit of a logit may depend on the images beside its own.
        """
        batch = tuple(rows)
        if batch not in self.known:
            self.known[batch] = logits_of(self.classifier, images)
        return self.known[batch]

    @cached_property
    def fast(self) -> OptimisedView:
        """The classifier as budget attacks search it."""
        return self._view(
            None if self.plan.settings.precision == "auto" else self.plan.settings.precision
        )

    @cached_property
    def exact(self) -> OptimisedView:
        """In float32: the nearest fooling image lies on the boundary, where low precision would
        miss it.
        """
        return self.fast if self.fast.precision == "fp32" else self._view("fp32")

    def _view(self, precision: Precision | None) -> OptimisedView:
        gradients = self.classifier.spec.gradients
        example = torch.zeros(2, *self.cohort.shape, device=self.device)
        precision = precision if gradients else "fp32"
        compiled = self.plan.settings.compile and gradients
        return OptimisedView(self.classifier, example, precision=precision, compiled=compiled)

    def attack(self, trial: Trial, number: int, rows: Sequence[int]) -> pa.Table:
        """Outcomes of one trial on one shard."""
        import pyarrow as pa

        seed = int(fingerprint([self.plan.settings.seed, trial.name, number]), 16) >> 1
        generator = torch.Generator().manual_seed(seed)
        return pa.concat_tables(
            in_halves(lambda part: self._attack(trial, part, generator), rows, generator, self.room)
        )

    def _attack(self, trial: Trial, rows: Sequence[int], generator: torch.Generator) -> pa.Table:
        import pyarrow as pa

        images = load_images(self.cohort, rows).to(self.device)
        labels = load_labels(self.cohort, rows).to(self.device)
        threat = self.plan.confine(trial.threat, self.cohort, rows, self.device)
        clean, zero = self.clean(rows, images), torch.zeros(len(rows), dtype=torch.bool)
        cost, members = AttackCost(len(rows), self.plan.settings.limits), [""]
        if trial.corruption:
            return pa.concat_tables(self._corrupt(trial, rows, images, labels, clean))
        if trial.attack is None:
            attacked = verify(self.classifier, images, images, labels, threat, clean)
            if self.classifier.spec.gradients:
                zero = zero_gradients(self.classifier, images, labels)
        else:
            attack = trial.attack
            members = [*attack.members, ""] if isinstance(attack, Cascade) else members
            if trial.curve:
                radii = sorted({one.in_image_units(self.plan.std) for one in trial.curve} - {0.0})
                attack = SmallestEps(quick(attack), tuple(radii)) if radii else attack
            attacked = attack_batch(
                attack,
                self.classifier,
                self.exact if trial.facts.minimal else self.fast,
                images,
                labels,
                trial.physical or threat,
                generator=generator,
                cost=cost,
                clean=clean,
            )
        parts = [(trial, threat, attacked)]
        if trial.curve:
            untouched = verify(self.classifier, images, images, labels, threat, clean)
            alone = [trial.at(eps, self.plan.std) for eps in trial.curve]
            threats = [replace(one.threat, mask=threat.mask) for one in alone]
            shown = [within(float(at.eps), attacked, untouched, at.norm) for at in threats]
            parts = list(zip(alone, threats, shown, strict=True))
        right = ~threat.fooled(clean, labels)
        tables = []
        for one, at, outcome in parts:
            columns = self._columns(one, rows, images, at, clean, outcome)
            columns["broken_by"] = [members[place] for place in outcome.broken_by.tolist()]
            columns["zero_gradient"] = zero.tolist()
            # One search for a whole curve: each of its radii bears an equal part.
            columns["forwards"] = [cost.forwards / len(rows) / len(parts)] * len(rows)
            columns["gradients"] = [cost.gradients / len(rows) / len(parts)] * len(rows)
            # A success within eps cannot be bettered; a nearest image can.
            columns["cut_short"] = (
                right & cost.cut_short & (~outcome.fooled | trial.facts.minimal)
            ).tolist()
            tables.append(table_of(columns))
        return pa.concat_tables(tables)

    def _corrupt(
        self, trial: Trial, rows: Sequence[int], images: Images, labels: Labels, clean: Logits
    ) -> list[pa.Table]:
        """Outcomes at each severity; a slice is changed alike in any company."""

        n, tables = len(rows), []
        for severity in trial.curve:
            points = corrupt(
                images,
                trial.corruption,
                int(severity.value),
                seed=self.plan.settings.seed,
                keys=[self.cohort.cases[row].case_id for row in rows],
            )
            outcome = corrupted(self.classifier, points, images, labels)
            one = trial.at(severity, self.plan.std)
            columns = self._columns(one, rows, images, trial.threat, clean, outcome)
            columns |= {"broken_by": [""] * n, "zero_gradient": [False] * n}
            columns |= {"forwards": [1.0] * n, "gradients": [0.0] * n, "cut_short": [False] * n}
            tables.append(table_of(columns))
        return tables

    def _seen_in(
        self, rows: Sequence[int], images: Images, attacked: Attacked
    ) -> dict[str, list[float]]:
        """How much of each change lies in the lesion, and how like the slice is to what it was; NaN
        where it has no outline, or where nothing changed.
        """
        changed = attacked.images - images
        masks = load_masks(self.cohort, rows)
        lesion = torch.zeros_like(changed, dtype=torch.bool) if masks is None else masks
        inside, area = share_in(changed.cpu().square(), lesion.cpu())
        alike = structural_similarity(attacked.images, images).cpu()
        return {
            "lesion_energy": inside.tolist(),
            "lesion_area": area.tolist(),
            "ssim": alike.tolist(),
        }

    def _columns(
        self,
        trial: Trial,
        rows: Sequence[int],
        images: Images,
        threat: ThreatModel,
        clean: Logits,
        attacked: Attacked,
    ) -> dict[str, Any]:
        import pyarrow as pa

        cases = [self.cohort.cases[row] for row in rows]
        n, classes = len(cases), self.classifier.classes
        # Named as a file names them, so that a shard is the same before and after it was stored.
        shares = pa.list_(pa.field("element", pa.float64()))
        # On the CPU, where looking at them one by one does not stop a GPU each time.
        before, after = probabilities(clean).cpu(), probabilities(attacked.logits).cpu()
        ends, eps = np.arange(n + 1, dtype=np.int32) * len(classes), trial.eps or Eps(0.0)
        return {
            "case_id": [case.case_id for case in cases],
            "index": list(rows),
            "patient_id": [case.patient_id for case in cases],
            "group": [case.group for case in cases],
            "label": [case.label for case in cases],
            "plane": [case.plane for case in cases],
            "attack": [trial.facts.name] * n,
            "norm": [trial.norm] * n,
            "eps": [float("inf") if trial.facts.minimal else eps.value] * n,
            "eps_units": [eps.units] * n,
            "eps_image": [float(threat.eps)] * n,
            "target": ["" if threat.target is None else self.plan.settings.target] * n,
            "clean_prediction": [classes[k] for k in clean.argmax(1).tolist()],
            "clean_confidence": before.amax(1).tolist(),
            "prediction": [classes[k] for k in attacked.logits.argmax(1).tolist()],
            "confidence": after.amax(1).tolist(),
            "label_confidence": [after[k, case.class_index].item() for k, case in enumerate(cases)],
            "probabilities": pa.ListArray.from_arrays(
                ends, after.flatten().double().numpy(), shares
            ),
            **{f"distance_{norm}": attacked.distance(norm).tolist() for norm in NORMS},
            **self._seen_in(rows, images, attacked),
            "fooled": attacked.fooled.tolist(),
            "verified": attacked.verified.tolist(),
        }


def describe_attacks(plan: Plan, outcomes: pa.Table) -> list[AttackRun]:
    """What each attack is, its settings, and what it spent per image."""
    import pyarrow.compute as pc

    runs = []
    for trial in plan.attacks:
        named = pc.equal(outcomes["attack"], trial.facts.name)
        rows = outcomes.filter(pc.and_(named, pc.equal(outcomes["norm"], trial.norm)))
        if trial.radii:
            same = [
                pc.and_(pc.equal(rows["eps"], e.value), pc.equal(rows["eps_units"], e.units))
                for e in trial.radii
            ]
            rows = rows.filter(functools.reduce(pc.or_, same))
        times = max(len(trial.radii), 1)
        runs.append(
            AttackRun(
                attack=trial.facts.name,
                title=trial.facts.title,
                paper=trial.facts.paper,
                doi=trial.facts.doi,
                minimal=trial.facts.minimal,
                iterative=trial.facts.iterative,
                knowledge=trial.facts.knowledge,
                members=members_of(trial),
                member_knowledge=_knowledge_of(trial),
                norm=trial.norm if trial.physical or trial.corruption else "",
                eps=", ".join(map(str, trial.radii)) or None,
                settings=_settings_of(trial),
                slices=rows.num_rows // times,
                gradients_per_image=round(pc.mean(rows["gradients"]).as_py() * times, 2),
                forwards_per_image=round(pc.mean(rows["forwards"]).as_py() * times, 2),
            )
        )
    return runs


def members_of(trial: Trial) -> dict[str, str]:
    """Name to title of a suite's members that know the norm, in their order; of others none."""
    if not isinstance(trial.attack, Cascade):
        return {}
    return {
        name: trial.facts.members.get(name, name)
        for name, attack in trial.attack.members.items()
        if knows_norm(attack, trial.threat.norm)
    }


def _knowledge_of(trial: Trial) -> dict[str, Knowledge]:
    """Name of each of those members to what it asks of a classifier."""
    members = trial.attack.members if isinstance(trial.attack, Cascade) else {}
    facts = {name: getattr(members[name], "facts", None) for name in members_of(trial)}
    return {name: known.knowledge for name, known in facts.items() if known}


def _settings_of(trial: Trial) -> dict[str, Any]:
    if trial.corruption:
        one = CORRUPTIONS[trial.corruption]
        return {"amounts": list(one.amounts), "what": one.what}
    made: Any = trial.attack  # One of the user's own may be any callable.
    own = asdict(made) if is_dataclass(made) else {}  # type: ignore[arg-type]
    return {"attack": type(made).__name__, **own}
