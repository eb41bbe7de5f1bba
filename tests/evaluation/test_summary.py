from __future__ import annotations

import pyarrow as pa
import pytest
from torch import nn

from robustmri.data.regions import REGIONS
from robustmri.evaluation.summary import describe_threat, with_worst_case
from robustmri.models.classifier import Classifier, ClassifierSpec
from robustmri.results.outcomes import columns_of

CLASSIFIER = Classifier(
    nn.Identity(), ClassifierSpec(backbone="custom", classes=("ill", "well"), size=100, std=0.2)
)
SHAPE = (1, 100, 100)


def arrow(made):
    return pa.table({name: pa.array(column.tolist()) for name, column in made.columns().items()})


def test_worst_rows_stand_below_the_table_in_its_own_types(table):
    before = arrow(table(6, clean_wrong=[5]).add("fgsm", 0.04, [0, 5]).add("pgd", 0.04, [1, 5]))
    after = with_worst_case(before)
    assert after.schema == before.schema
    assert after.slice(0, before.num_rows).equals(before)
    worst = columns_of(after.slice(before.num_rows))
    assert set(worst["attack"]) == {"worst"}
    assert worst["index"][worst["fooled"]].tolist() == [0, 1, 5]
    assert (worst["gradients"] == 20).all()


def test_a_table_without_budget_attacks_stays_as_it_is(table):
    before = arrow(table(3).add("cw-l2", float("inf"), [0], norm="l2"))
    assert with_worst_case(before).equals(before)


def test_eps_is_said_in_three_units_once(planned):
    plan = planned(attacks=("fgsm", "pgd"), eps=("0.04", "0.1@normalised"), std=0.2)
    said = describe_threat(plan, CLASSIFIER, SHAPE)
    assert said[0].startswith("No pixel changes by more than eps = 0.04 of the [0, 1] range")
    assert "10.2 of 255 grey levels, 0.2 after normalisation (std 0.2)" in said[0]
    assert "0.02 of the [0, 1] range, 5.1 of 255 grey levels, 0.1 after normalisation" in said[1]
    assert said[2:] == [
        "Goal of the attacker: any wrong class. Every pixel may change; grey values stay within "
        "[0, 1].",
        "Knowledge: white box, the attacker has the network and its weights (NIST AI 100-2: "
        "evasion).",
    ]


@pytest.mark.parametrize(("region", "said"), [(name, said) for name, said in REGIONS.items()])
def test_the_region_is_said(region, said, planned):
    sentences = describe_threat(
        planned(std=0.2, attacks=("pgd",), region=region), CLASSIFIER, SHAPE
    )
    assert (
        sentences[1]
        == f"Goal of the attacker: any wrong class. {said}; grey values stay within [0, 1]."
    )


def test_l1_is_no_length(planned):
    said = describe_threat(
        planned(std=0.2, attacks=("pgd",), eps=("12",), norm="l1"), CLASSIFIER, SHAPE
    )
    assert "sum to at most eps = 12 of the [0, 1] range" in said[0]
    assert "12 pixels from black to white" in said[0]
    assert "Euclidean" not in " ".join(said)


def test_l2_target_and_minimal_attacks_are_said(planned):
    plan = planned(attacks=("pgd", "cw-l2"), eps=("2",), norm="l2", target="glioma", std=0.2)
    said = describe_threat(plan, CLASSIFIER, SHAPE)
    assert "all 100 x 100 pixels together has a Euclidean length of at most eps = 2" in said[0]
    assert "as much as 5.10 of 255 grey levels on every pixel" in said[0]
    assert "to make it say 'glioma'" in said[1]
    assert said[-1] == "cw-l2 has no radius: it looks for the nearest image that fools, in l2."
