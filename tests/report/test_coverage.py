"""What a run is said to cover, and that no more is said."""

from __future__ import annotations

import msgspec
import pytest

from robustmri.report.coverage import SOURCES, map_coverage
from robustmri.results.schema import Check, NormFacts, load_result


@pytest.fixture
def state(build):
    """`state(word, **changes)`: how a word ends for a result with these changes."""
    result = load_result(build("one"))

    def state(word, certified=False, accepted=False, **changes):
        changed = msgspec.structs.replace(result, **changes)
        found = {
            one.word: one
            for source in map_coverage([changed], certified=certified, accepted=accepted)
            for one in source.words
        }
        (name,) = [name for name in found if word in name]
        return found[name]

    state.result = result
    return state


def asking(result, knowledge, name="pgd"):
    return [msgspec.structs.replace(result.attacks[0], knowledge=knowledge, attack=name)]


def test_a_white_box_run(state):
    assert state("white box").state == "covered"
    assert state("white box").said.startswith("FGSM, BIM")
    assert state("black box").state == "not covered"
    assert state("model evasion (5)").state == "partly"
    assert state("Stability").state == "partly"
    assert state("Independence").state == "covered"


@pytest.mark.parametrize("knowledge", ["scores", "decisions"])
def test_attacks_by_queries_are_black_box(state, knowledge):
    attacks = asking(state.result, knowledge)
    assert state("white box", attacks=attacks).state == "not covered"
    assert state("black box", attacks=attacks).state == "covered"


def test_random_noise_is_no_attack_by_queries(state):
    attacks = asking(state.result, "decisions", name="noise")
    assert state("black box", attacks=attacks).state == "not covered"


def test_a_member_of_a_suite_counts_for_what_it_asks(state):
    suite = msgspec.structs.replace(
        state.result.attacks[0],
        title="Standard suite",
        members={"apgd": "APGD", "square": "Square"},
        member_knowledge={"apgd": "gradients", "square": "scores"},
    )
    assert state("white box", attacks=[suite]).said == "Standard suite."
    found = state("black box", attacks=[suite])
    assert (found.state, found.said) == ("covered", "Square (of Standard suite).")


def test_without_attacks_nothing_of_them_is_covered(state):
    for word in ("white box", "black box", "transferred", "Stability", "model evasion (5)"):
        assert state(word, attacks=[]).state == "not covered"


def test_what_is_never_covered(state):
    for word in ("Poisoning", "Privacy", "feedback loops", "poisoning, inversion", "monitoring"):
        assert state(word, certified=True, accepted=True).state == "not covered"


def test_a_certificate_is_a_part_of_formal_methods(state):
    assert state("Formal").state == "not covered"
    assert state("Formal", certified=True).state == "partly"


def test_leakage_and_slice_splits_take_independence_away(state):
    split = state.result.split
    leak = Check(name="Patient overlap", status="fail", detail="Three.")
    for changed in (
        msgspec.structs.replace(split, leakage=[leak]),
        msgspec.structs.replace(split, kind="slice"),
    ):
        assert state("Independence", split=changed).state == "partly"


def test_changes_of_a_scanner_are_named(state):
    assert state("errors, faults").state == "not covered"
    bias = NormFacts(title="bias field", meaning="strength", per_pixel=False)
    norms = {**state.result.norms, "bias-field": bias}
    assert (
        state("errors, faults", norms=norms).said == "Changes as a scanner makes them: bias field."
    )


def test_transfer_and_targets(state):
    transfer = asking(state.result, "gradients", "transfer")
    assert state("transferred", attacks=transfer).state == "covered"
    aimed = [msgspec.structs.replace(state.result.results[-1], target="glioma")]
    assert state("Targeted", results=aimed).said == "Towards glioma."


def test_no_document_is_said_to_be_conformed_to(state):
    told = str(map_coverage([state.result], certified=True, accepted=True)).lower()
    for word in ("conform", "compl", "certified by", "approved", "fulfil", "satisf"):
        assert word not in told
    assert len(SOURCES) == 4
