"""A certificate from file to file: beside which result, resumed, refused, and on the page."""

from __future__ import annotations

import shutil

import msgspec
import pytest

from robustmri.core.errors import CheckpointError, DataError, ResultError, SettingsError
from robustmri.evaluation.certify import check_bracket
from robustmri.evaluation.recount import refuse_contradictions
from robustmri.models.checkpoint import load_checkpoint, save_checkpoint
from robustmri.report import write_page
from robustmri.results.certificate import load_certificate
from robustmri.results.outcomes import columns_of
from robustmri.results.schema import load_result
from robustmri.verbs.certify import certify
from robustmri.verbs.evaluate import evaluate

pytestmark = pytest.mark.usefixtures("tiny_networks")

QUICK = {"sigma": 0.25, "samples": 100, "guesses": 20, "attack_steps": 10, "attack_draws": 4}


@pytest.fixture(scope="module")
def evaluated(tiny_run, tiny_cohort, use_tiny_networks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated") / "result"
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_networks(patch)
        settings = {"attacks": ("fgsm",), "norm": "l2", "eps": ("0.05",), "limit": 12}
        evaluate(tiny_run, tiny_cohort, folder, **settings)
    return folder


@pytest.fixture
def result(evaluated, tmp_path):
    return shutil.copytree(evaluated, tmp_path / "result")


class Killed(BaseException):
    pass


def test_a_certificate_is_made_shown_and_resumed(result, tiny_run, tiny_cohort, tmp_path):
    import pyarrow.parquet as pq

    def stop(task, done, total, note=""):
        if done == 1:
            raise Killed

    with pytest.raises(Killed):
        certify(tiny_run, tiny_cohort, result, **QUICK, progress=stop)
    assert load_certificate(result, load_result(result)) is None
    asked = []
    found = certify(
        tiny_run,
        tiny_cohort,
        result,
        **QUICK,
        progress=lambda task, done, total, note="": asked.append(done),
    )
    assert len(asked) > 1
    facts = load_result(result).split
    assert (found.n_slices, found.n_patients) == (facts.n_slices, facts.n_patients)
    assert found.alpha_each == pytest.approx(found.alpha / found.n_slices)
    slices = [one for one in found.certified if one.unit == "slice"]
    left = [one for one in found.attacked if one.unit == "slice"]
    # Whatever is not answered, or wrongly, withstands nothing.
    assert 0.5 < slices[0].accuracy == left[0].accuracy
    for lower, upper in zip(slices, left, strict=True):
        assert lower.eps == upper.eps
        assert lower.accuracy <= upper.accuracy
        assert lower.ci_low <= lower.accuracy <= lower.ci_high
    beyond = [one.accuracy for one in slices if one.eps >= found.largest]
    assert beyond
    assert not any(beyond), "nothing is certified beyond the largest radius"
    assert [one.accuracy for one in slices] == sorted((o.accuracy for o in slices), reverse=True)
    assert left[-1].accuracy < left[0].accuracy, "the attack breaks something"
    assert [check.status for check in found.checks] == ["pass"]
    # From the start it would have been the same; and a rerun changes nothing.
    whole = shutil.copytree(result, tmp_path / "other")
    shutil.rmtree(whole / "certificate")
    again = certify(tiny_run, tiny_cohort, whole, **QUICK)
    assert again.certified == found.certified
    assert again.attacked == found.attacked
    assert certify(tiny_run, tiny_cohort, result, **QUICK) == found
    with pytest.raises(SettingsError, match=r"other settings .*certify\.sigma"):
        certify(tiny_run, tiny_cohort, result, **{**QUICK, "sigma": 0.5})
    page = write_page([result], tmp_path / "report.html", images=False).read_text()
    assert "What holds for certain" in page
    assert "Left by the attack" in page
    table = columns_of(pq.read_table(result / "certificate" / "certificates.parquet"))
    assert not [case for case in table["case_id"] if case in page]
    failed = check_bracket(table, table["radius"] > 0)
    assert failed.status == "fail"
    assert failed.case_ids


def test_what_does_not_belong_together_is_refused(result, tiny_run, tiny_cohort, tmp_path):
    with pytest.raises(ResultError, match=r"holds no robustness.json.*robustmri evaluate"):
        certify(tiny_run, tiny_cohort, tmp_path / "nothing")
    with pytest.raises(SettingsError, match=r"sigma must be .*above 0"):
        certify(tiny_run, tiny_cohort, result, sigma=0.0)
    with pytest.raises(SettingsError, match=r"10 copies certify nothing.* need at least 14"):
        certify(tiny_run, tiny_cohort, result, **{**QUICK, "samples": 10})
    assert not (result / "certificate").exists(), "nothing is begun"
    classifier, stored = load_checkpoint(tiny_run)
    classifier.network[0].weight.data.mul_(1.01)
    other = tmp_path / "other"
    save_checkpoint(classifier, other, training=stored.training, provenance=stored.provenance)
    with pytest.raises(CheckpointError, match="another checkpoint"):
        certify(other, tiny_cohort, result)
    found = certify(tiny_run, tiny_cohort, result, **{**QUICK, "limit": 4, "attack_steps": 0})
    assert found.n_slices == 4
    assert not found.attacked
    path = result / "certificate" / "certificate.json"
    refuse_contradictions(result)
    other_number = msgspec.structs.replace(found.certified[0], accuracy=0.123)
    told = msgspec.structs.replace(found, certified=[other_number, *found.certified[1:]])
    path.write_bytes(msgspec.json.encode(told))
    with pytest.raises(ResultError, match="contradicts"):
        refuse_contradictions(result)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(found, split="another")))
    with pytest.raises(ResultError, match="another classifier or another split"):
        write_page([result], tmp_path / "report.html")
    assert found.identity == stored.identity
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(found, identity="another")))
    with pytest.raises(ResultError, match="another classifier or another split"):
        write_page([result], tmp_path / "report.html")
    before = {name: told for name, told in msgspec.to_builtins(found).items() if name != "identity"}
    path.write_bytes(msgspec.json.encode(before))
    assert load_certificate(result, load_result(result)).certified == found.certified
    path.write_bytes(msgspec.json.encode(found))
    (result / "certificate" / "certificates.parquet").write_bytes(b"")
    with pytest.raises(ResultError, match="missing or was changed"):
        write_page([result], tmp_path / "report.html")
    with pytest.raises(DataError):
        certify(tiny_run, tmp_path / "no-cohort", result)
