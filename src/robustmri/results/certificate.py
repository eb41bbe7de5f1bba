"""The certificate of a result, `certificate/certificate.json` below its folder: up to which l2 size
no change alters the answers of the smoothed classifier.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from robustmri.core.errors import ResultError
from robustmri.core.files import read_json, sha256_of, system_error, write_struct
from robustmri.results.lineage import is_of
from robustmri.results.outcomes import read_bounded
from robustmri.results.schema import Check, Result, RobustnessReport

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "certificate"
FILE = "certificate.json"
TABLE = "certificates.parquet"
CERTIFICATE_VERSION = 1
AGAIN = "Remove that folder and certify again."


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """What randomised smoothing found out about the slices of a result.

    Attributes:
        sigma: of the noise, in image units.
        samples: noisy copies that each answer is a vote of.
        alpha: probability with which any certificate of the table may be wrong.
        alpha_each: the same for each single slice: alpha divided by their number.
        largest: radius that a slice gets whose copies all agree: more cannot be certified so.
        n_slices: that were certified.
        n_patients: whose they are.
        abstained: slices about which the vote was open.
        median_radius: over slices that were answered rightly; None where none was.
        certified: accuracy of the smoothed classifier that holds against every change up to each
            radius, by slice and by patient; the first radius is 0.
        attacked: its accuracy under the nearest change that was found, at the same radii; empty
            where it was not attacked.
        checks: of the certificate itself.
        checkpoint_sha256, identity, split: of the result that this belongs to; no identity in a
            certificate of before.
        settings: as they were given.
        provenance: where and when.
        files: sha256 of the table beside it.
    """

    sigma: float
    samples: int
    alpha: float
    alpha_each: float
    largest: float
    n_slices: int
    n_patients: int
    abstained: int
    median_radius: float | None
    certified: list[Result]
    attacked: list[Result]
    checks: list[Check]
    checkpoint_sha256: str
    split: str
    settings: dict[str, Any]
    provenance: dict[str, Any] = {}
    files: dict[str, str] = {}
    identity: str = ""
    certificate_version: int = CERTIFICATE_VERSION

    def __repr__(self) -> str:
        return (
            f"Certificate: sigma {self.sigma:g}, {self.n_slices} slices of {self.n_patients} "
            f"patients, {self.abstained} abstained"
        )


def save_certificate(certificate: Certificate, folder: Path | str) -> Path:
    """Write `folder/certificate.json` atomically and return its path."""
    path = Path(folder) / FILE
    write_struct(path, certificate)
    return path


def read_certificates(result_folder: Path | str) -> pa.Table:
    """The table of slices of a certificate that `load_certificate` has read."""
    import pyarrow
    import pyarrow.parquet

    path = Path(result_folder) / FOLDER / TABLE
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            return read_bounded(file, path, None)
    except (pyarrow.ArrowException, OSError, MemoryError) as error:
        raise system_error(error, path) or ResultError(
            f"{path} is damaged or incomplete. {AGAIN}"
        ) from error


def load_certificate(result_folder: Path | str, result: RobustnessReport) -> Certificate | None:
    """The certificate below a result's folder; None where there is none.

    Raises:
        ResultError: damaged, of another version, changed since it was written, or of another
            classifier or other slices than the result.
    """
    path = Path(result_folder) / FOLDER / FILE
    if not path.is_file():
        return None
    found: Certificate = read_json(path, Certificate, error=ResultError, again=AGAIN)
    if found.certificate_version != CERTIFICATE_VERSION:
        raise ResultError(
            f"{path} has version {found.certificate_version}, this release reads "
            f"{CERTIFICATE_VERSION}. {AGAIN}"
        )
    same = is_of(result.model, found.checkpoint_sha256, found.identity)
    if not same or found.split != result.split.fingerprint:
        raise ResultError(
            f"{path} is about another classifier or another split than the robustness.json above "
            f"it. {AGAIN}"
        )
    table = path.with_name(TABLE)
    if not table.is_file() or sha256_of(table) != found.files.get(TABLE):
        raise ResultError(f"{table} is missing or was changed after {FILE} was written. {AGAIN}")
    return found
