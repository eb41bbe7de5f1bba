"""Certify the slices of a result by randomised smoothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from robustmri.core import processes
from robustmri.core.errors import CheckpointError, DataError, ResultError
from robustmri.core.files import atomic_file
from robustmri.core.progress import Progress, silent
from robustmri.core.provenance import describe_run
from robustmri.data.cohort import Cohort
from robustmri.recipes import change_settings
from robustmri.results.budget import CLEAN, NO_BUDGET
from robustmri.results.certificate import (
    FILE,
    FOLDER,
    TABLE,
    Certificate,
    load_certificate,
    save_certificate,
)
from robustmri.results.lineage import is_of
from robustmri.results.outcomes import columns_of, load_outcomes
from robustmri.results.schema import RobustnessReport, hash_files, load_result
from robustmri.verbs.run_folder import claimed_folder

if TYPE_CHECKING:
    from robustmri.evaluation.settings import CertifySettings
    from robustmri.models.checkpoint import Checkpoint


def certify(
    checkpoint: str | Path,
    cohort: str | Path,
    out: str | Path,
    *,
    settings: CertifySettings | None = None,
    devices: int = 1,
    nodes: int = 1,
    progress: Progress = silent,
    **changes: Any,
) -> Certificate:
    """Certify a checkpoint on the slices of a result that `evaluate` made of it; writes
    certificate/certificate.json and certificate/certificates.parquet below that result.

    What is certified is the smoothed classifier, which answers what most noisy copies of a slice
    are said to be: no change of an l2 size below a slice's radius alters its answer. All
    certificates hold together with probability 1 - alpha.

    Args:
        checkpoint: checkpoint folder, or the run folder that holds it.
        cohort: folder made by `prepare`.
        out: result folder of `evaluate`; a killed run goes on with the shards that are missing.
        settings: see `CertifySettings`.
        devices: processes or GPUs on each machine that share the work.
        nodes: machines.
        progress: told about the shards.
        changes: single settings, such as `sigma=0.5`.

    Raises:
        ResultError: `out` holds no result.
        CheckpointError, DataError: the result is of another checkpoint or cohort.
        SettingsError: it has a certificate with other settings, or so few copies are asked for
            that nothing could be certified.
    """
    import pyarrow.parquet as pq

    from robustmri.evaluation.certify import (
        check_samples,
        run_certificates,
        summarise_certificates,
    )
    from robustmri.evaluation.plan import spread_evenly
    from robustmri.evaluation.settings import CertifySettings, EvaluateSettings
    from robustmri.evaluation.shards import clear_shards
    from robustmri.models.checkpoint import check_fits, load_checkpoint
    from robustmri.models.optimised import full_float32
    from robustmri.training.launch import join_processes

    settings = change_settings(settings or CertifySettings(), changes)
    result, scans, folder = load_result(out), Cohort.open(cohort), Path(out) / FOLDER
    classifier, stored = load_checkpoint(checkpoint)
    _refuse_other(result, stored, scans, str(checkpoint), out)
    renamed = EvaluateSettings(classes=result.asked.classes).class_names
    scans = scans.with_classes(stored.spec.classes, renamed)
    check_fits(stored, scans.classes, scans.size, scans.channels)
    known = {case.case_id: case.index for case in scans.cases}
    tested = load_outcomes(out).rows(CLEAN, NO_BUDGET)["case_id"]
    rows = spread_evenly(sorted(known[case] for case in tested), settings.limit)
    check_samples(settings, len(rows))
    identity = {"certify": msgspec.to_builtins(settings), "checkpoint": stored.identity}
    with claimed_folder(folder, identity, done=FILE):
        if (folder / FILE).exists():
            return _loaded(out, result)
        device = join_processes(devices, nodes)
        with full_float32():
            table = run_certificates(
                classifier,
                scans,
                rows,
                settings,
                folder,
                identity=stored.identity,
                device=device,
                progress=progress,
            )

        def write() -> None:
            with atomic_file(folder / TABLE) as partial:
                pq.write_table(table, partial)
            made = summarise_certificates(
                columns_of(table),
                settings,
                checkpoint_sha256=stored.weights_sha256,
                split=result.split.fingerprint,
            )
            told = {"provenance": describe_run(settings.seed), "files": hash_files(folder, [TABLE])}
            made = msgspec.structs.replace(made, identity=stored.identity, **told)
            save_certificate(made, folder)
            clear_shards(folder)

        processes.wait_for_all()
        processes.on_one_process(write)
        return _loaded(out, result)


def _loaded(out: str | Path, result: RobustnessReport) -> Certificate:
    found = load_certificate(out, result)
    if found is None:
        raise ResultError(f"{out} lost its certificate while it was written. Certify again.")
    return found


def _refuse_other(
    result: RobustnessReport, stored: Checkpoint, cohort: Cohort, checkpoint: str, out: str | Path
) -> None:
    if not is_of(result.model, stored.weights_sha256, stored.identity):
        raise CheckpointError(
            f"{out} is a result of another checkpoint than {checkpoint}. Evaluate this one first: "
            f"robustmri evaluate {checkpoint} COHORT --out DIR."
        )
    if result.cohort.fingerprint != cohort.fingerprint:
        raise DataError(
            f"{out} was measured on another cohort than {cohort.root}. Give the cohort folder that "
            "it was evaluated on."
        )
