"""One slice, from its file to the pictures of its nearest wrong answer."""

from __future__ import annotations

import json

import numpy as np
import pydicom
import pytest
from PIL import Image

import robustmri
from robustmri.attacks import FMN, PGD, Nearest
from robustmri.core.errors import DataError, SettingsError
from robustmri.data.derived import WARNING, spread_change
from robustmri.data.intensity import resize, scale
from robustmri.models.checkpoint import load_checkpoint
from robustmri.results.cases import load_cases
from robustmri.threat.norms import NORMS
from robustmri.verbs.case import case
from robustmri.verbs.evaluate import evaluate
from write_dicom import write_dicom

pytestmark = pytest.mark.usefixtures("tiny_networks")


@pytest.fixture
def short(monkeypatch):
    """Short searches, where the question is not how near."""
    few = Nearest(steps=20, walk=10, presses=1)
    monkeypatch.setattr("robustmri.evaluation.case.NEAREST", few)
    monkeypatch.setattr("robustmri.evaluation.case.NEARER", PGD(steps=10, stop_when_fooled=True))


@pytest.fixture
def scan(tiny_scans):
    return sorted((tiny_scans / "images").glob("glioma-8-*.png"))[0]


def answer(run, image):
    import torch

    classifier, _ = load_checkpoint(run)
    logits = classifier(torch.from_numpy(image)[None, None])
    return classifier.classes[int(logits.argmax())]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_nearest_wrong_answer_is_found_and_written(norm, scan, short, tiny_run, tmp_path):
    facts = case(scan, tiny_run, tmp_path / "out", norm=norm)
    told = json.loads((tmp_path / "out" / "case.json").read_text())
    assert told["case"]["smallest_eps"] == facts.smallest_eps
    assert told["source"]["name"] == scan.name
    prepared = resize(scale(np.asarray(Image.open(scan))), 32)
    assert answer(tiny_run, prepared) == facts.answer
    with Image.open(tmp_path / "out" / "attacked.png") as image:
        assert image.mode == "I;16"
        attacked = (np.asarray(image) / 65535).astype(np.float32)
    assert answer(tiny_run, attacked) == facts.nearest != facts.answer
    import torch

    size = float(NORMS[norm].size(torch.from_numpy(attacked - prepared)[None, None]))
    assert size == pytest.approx(facts.smallest_eps, rel=0.01)
    assert (facts.grey_levels is not None) == (norm == "linf")
    assert sum(facts.probabilities.values()) == pytest.approx(1, abs=1e-4)
    with Image.open(tmp_path / "out" / "picture.png") as picture:
        assert picture.width > 3 * 384


def test_a_second_look_finds_no_farther_image_than_the_first(scan, tiny_run, tmp_path):
    import torch

    from robustmri.threat.threat_model import ThreatModel

    facts = case(scan, tiny_run, tmp_path / "out")
    classifier, _ = load_checkpoint(tiny_run)
    image = torch.from_numpy(resize(scale(np.asarray(Image.open(scan))), 32))[None, None]
    alone = FMN(steps=200)(
        classifier,
        image,
        classifier(image).argmax(1),
        ThreatModel(norm="linf", eps=float("inf")),
        generator=torch.Generator(),
    )
    assert facts.smallest_eps <= float((alone - image).abs().max()) + 1e-6
    assert facts.attacks == ("nearest", "pgd")


def test_the_lesion_and_a_result_to_compare_with(scan, short, tiny_run, tiny_cohort, tmp_path):
    mask = np.zeros((32, 32), np.uint8)
    with Image.open(scan) as image:
        mask = np.zeros((image.height, image.width), np.uint8)
    mask[: len(mask) // 2] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    few = {"attacks": ("fmn", "pgd"), "limit": 12, "options": {"fmn": {"steps": 20}}}
    evaluate(tiny_run, tiny_cohort, tmp_path / "result", precision="fp32", **few)
    facts = case(
        scan, tiny_run, tmp_path / "out", mask=tmp_path / "mask.png", result=tmp_path / "result"
    )
    assert facts.lesion_share == pytest.approx(0.5)
    assert 0 < facts.share_in_lesion < 1
    cases = load_cases(tmp_path / "result")
    needed = cases.smallest_eps("linf")[cases.right]
    assert facts.compared_with == len(needed)
    assert facts.more_fragile == pytest.approx(float(np.mean(needed < facts.smallest_eps)))
    Image.fromarray(mask[:-1]).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match="Give its own mask"):
        case(scan, tiny_run, tmp_path / "no", mask=tmp_path / "mask.png")
    Image.fromarray(np.zeros_like(mask)).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match="black everywhere"):
        case(scan, tiny_run, tmp_path / "no", mask=tmp_path / "mask.png")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(("inverted", "compressed"), [(False, False), (True, False), (False, True)])
def test_a_dicom_source_gets_a_derived_image_that_fools_too(
    inverted, compressed, scan, short, tiny_run, tmp_path
):
    with Image.open(scan) as image:
        grey = np.asarray(image.resize((64, 64))).astype(np.uint16) * 12 + 7
    grey[0, 0], grey[0, 1] = 0, 4000
    source = write_dicom(
        tmp_path / "a.dcm",
        4095 - grey if inverted else grey,
        inverted=inverted,
        compressed=compressed,
    )
    facts = case(source, tiny_run, tmp_path / "out")
    made = pydicom.dcmread(tmp_path / "out" / "attacked.dcm")
    before = pydicom.dcmread(source)
    assert made.ImageType[:2] == ["DERIVED", "SECONDARY"]
    assert made.SeriesDescription == WARNING
    assert "NOT FOR DIAGNOSIS" in made.DerivationDescription
    assert made.SOPInstanceUID not in (before.SOPInstanceUID, "")
    assert made.SeriesInstanceUID != before.SeriesInstanceUID
    assert made.StudyInstanceUID == before.StudyInstanceUID
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
    for name in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "Rows"):
        assert made[name].value == before[name].value
    assert (made.pixel_array != before.pixel_array).any()
    # Read as the scan was, it is the attacked slice: the same size of change, rounded to 12 bits.
    again = robustmri.case(tmp_path / "out" / "attacked.dcm", tiny_run, tmp_path / "again")
    assert again.smallest_eps < facts.smallest_eps / 4, "it lies on the boundary"


def windowed_file(scan, path):
    """A slice of which a third lies beyond its window, 12 bits deep."""
    with Image.open(scan) as image:
        grey = np.asarray(image.resize((64, 64))).astype(np.uint16) * 12 + 7
    low, high = np.quantile(grey, (0.6, 0.95)).astype(int).tolist()
    dataset = pydicom.dcmread(write_dicom(path, grey))
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.WindowCenter, dataset.WindowWidth = (low + high + 1) / 2, high - low + 1
    dataset.save_as(path)
    return path, np.clip(grey, low, high)


def test_a_window_is_that_of_the_file_where_the_cohort_had_it(scan, short, tiny_run, tmp_path):
    source, clipped = windowed_file(scan, tmp_path / "a.dcm")
    facts = robustmri.case(source, tiny_run, tmp_path / "out", window="file")
    assert json.loads((tmp_path / "out" / "case.json").read_text())["window"] == "file"
    Image.fromarray(clipped).save(tmp_path / "clipped.png")
    same = robustmri.case(tmp_path / "clipped.png", tiny_run, tmp_path / "same")
    assert facts.smallest_eps == pytest.approx(same.smallest_eps, rel=1e-3)
    without = robustmri.case(source, tiny_run, tmp_path / "without")
    assert without.smallest_eps != pytest.approx(facts.smallest_eps, rel=0.05)
    # What lies beyond the window must not swallow the change.
    made = tmp_path / "out" / "attacked.dcm"
    again = robustmri.case(made, tiny_run, tmp_path / "again", window="file")
    assert again.smallest_eps < facts.smallest_eps / 4
    for image, window, says in (
        (source, "mine", "expected 'file'"),
        (tmp_path / "clipped.png", "file", "carries no window"),
    ):
        with pytest.raises(SettingsError, match=says):
            robustmri.case(image, tiny_run, tmp_path / "no", window=window)


@pytest.mark.parametrize("grey", [True, False])
def test_an_answer_about_a_palette_is_kept(grey, scan, short, tiny_run, tmp_path):
    with Image.open(scan) as image:
        path = write_dicom(tmp_path / "a.dcm", np.asarray(image.resize((64, 64)), np.uint16))
    dataset = pydicom.dcmread(path)
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    del dataset.RescaleSlope, dataset.RescaleIntercept
    for place, colour in enumerate(("Red", "Green", "Blue")):
        values = np.arange(256, dtype="<u2") * (250 if grey else 250 - 40 * place)
        table = f"{colour}PaletteColorLookupTable"
        dataset.add_new(f"{table}Descriptor", "US", [256, 0, 16])
        dataset.add_new(f"{table}Data", "OW", values.tobytes())
    dataset.save_as(path)
    facts = robustmri.case(path, tiny_run, tmp_path / "out")
    told = json.loads((tmp_path / "out" / "case.json").read_text())
    assert told["case"]["smallest_eps"] == facts.smallest_eps
    assert told["files"] == ["picture.png", "attacked.png"]
    assert (
        "no attacked.dcm: no change can be added to values of a palette"
        in (told["source"]["notes"][-1])
    )
    assert not (tmp_path / "out" / "attacked.dcm").exists()


def test_a_change_is_spread_over_the_sources_pixels():
    change = np.arange(16, dtype=np.float32).reshape(4, 4)
    assert spread_change(change, (4, 4)).tolist() == change.tolist()
    assert resize(spread_change(change, (8, 8)), 4).tolist() == change.tolist()
    assert spread_change(change, (8, 4)).shape == (8, 4)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_bytes(b"no image"), "Expected an image"),
        (lambda path: path.mkdir(), "Expected an image"),
        (lambda path: Image.new("L", (9, 9), 7).save(path, "PNG"), "constant image"),
    ],
)
def test_what_is_no_scan_is_said(make, says, tiny_run, tmp_path):
    make(tmp_path / "scan.png")
    with pytest.raises(DataError, match=says):
        case(tmp_path / "scan.png", tiny_run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
