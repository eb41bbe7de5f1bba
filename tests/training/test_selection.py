from __future__ import annotations

import csv
import random

import msgspec
import pytest

from robustmri.training.selection import (
    Epoch,
    alarms,
    choose,
    explain_choice,
    pareto_front,
    read_epochs,
    rollback_epoch,
    watch,
    worth_keeping,
)


def row(epoch, clean, robust=None, eps=0.0, *, loss=1.0, fgsm=None, rate=0.1, zero=None):
    return Epoch(
        epoch=epoch,
        learning_rate=rate,
        eps=eps,
        train_loss=loss,
        validation_accuracy=clean,
        validation_robust_accuracy=robust,
        validation_fgsm_accuracy=fgsm,
        zero_gradient_share=zero,
        seconds=1.0,
    )


def run(*pairs, start=1, eps=0.04, **fields):
    """Rows of clean and robust accuracy in percent at full eps."""
    return [
        row(start + n, clean / 100, robust / 100, eps, **fields)
        for n, (clean, robust) in enumerate(pairs)
    ]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row(1, 0.8), row(2, 0.9), row(3, 0.7)], 2),
        ([row(1, 0.9), row(2, 0.9), row(3, 0.7)], 2),
        ([row(1, 0.9, 0.1), row(2, 0.8, 0.3), row(3, 0.7, 0.2)], 2),
        (
            [
                row(1, 0.9, 0.9, 0.01),
                row(2, 0.8, 0.5, 0.02),
                row(3, 0.6, 0.5, 0.04),
                row(4, 0.6, 0.4, 0.04),
            ],
            3,
        ),
        ([row(1, 1.0, 1.0, 0.01), row(2, 0.1, 0.0, 0.02)], 2),
    ],
    ids=[
        "the best",
        "the later of equals",
        "mean of clean and robust",
        "only at the full eps",
        "ramp not finished",
    ],
)
def test_which_epoch(rows, expected):
    assert choose(rows).epoch == expected


RISING = run((96, 40), (95, 60), (94, 70), (90, 80))


@pytest.mark.parametrize(
    ("rows", "cost", "reference", "expected", "says"),
    [
        (RISING, 1.0, 0.95, 3, "Epoch 3 is the most robust within 1 point: it loses 1.0 points"),
        (RISING, 0.99, 0.95, 2, "it loses no clean accuracy against the start"),
        (RISING, 5.0, 0.95, 4, "loses 5.0 points"),
        (
            RISING,
            1.0,
            None,
            2,
            "loses 1.0 points of clean accuracy against the best epoch of this run",
        ),
        (RISING, 0.0, None, 1, "loses no clean accuracy"),
        (
            RISING,
            1.0,
            0.99,
            1,
            "No epoch loses at most 1 point of clean accuracy against the start; epoch 1 loses "
            "least, 3.0 points",
        ),
        (RISING, None, None, 4, "Epoch 4 has the highest mean of clean and robust accuracy"),
        (run((95, 60), (95, 60)), 1.0, 0.95, 2, "Epoch 2"),
        (run((94, 60), (95, 60)), 1.0, 0.95, 2, "Epoch 2"),
        (
            [*run((99, 95), eps=0.01), *run((90, 50), start=2)],
            1.0,
            None,
            2,
            "loses least, 9.0 points",
        ),
    ],
)
def test_the_most_robust_epoch_within_the_clean_cost(rows, cost, reference, expected, says):
    assert choose(rows, clean_cost=cost, reference=reference).epoch == expected
    assert says in explain_choice(rows, clean_cost=cost, reference=reference)


def test_a_run_without_attack_keeps_its_most_accurate_epoch_at_any_cost():
    rows = [row(1, 0.8), row(2, 0.9), row(3, 0.895)]
    assert (
        choose(rows, clean_cost=1.0, reference=0.95)
        == choose(rows, clean_cost=1.0)
        == choose(rows)
        == rows[1]
    )
    assert pareto_front(rows) == [rows[1]]
    assert (
        explain_choice(rows)
        == explain_choice(rows, clean_cost=1.0)
        == "Epoch 2 has the highest clean accuracy."
    )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (RISING, [1, 2, 3, 4]),
        (run((90, 50), (80, 40), (85, 60), (84, 60)), [1, 3]),
        (run((90, 50), (90, 50), (90, 40)), [2]),
        ([*run((99, 99), eps=0.01), *run((90, 50), (80, 60), start=2)], [2, 3]),
        (run((70, 60), (90, 62), (80, 61)), [2]),
    ],
    ids=[
        "all",
        "dominated ones left out",
        "the later of equals",
        "only at the full eps",
        "one beats all",
    ],
)
def test_the_front(rows, expected):
    front = pareto_front(rows)
    assert [row.epoch for row in front] == expected
    for other in rows:
        if other.eps == 0.04:
            assert any(
                row.validation_accuracy >= other.validation_accuracy
                and row.robust_accuracy >= other.robust_accuracy
                for row in front
            )


@pytest.mark.parametrize("cost", [None, 0.0, 1.0, 5.0])
@pytest.mark.parametrize("reference", [None, 0.9])
def test_weights_that_are_chosen_were_kept_from_their_epoch_on(cost, reference):
    """Whatever comes: an epoch that was let go is never asked for again."""
    chance = random.Random(0)
    for _ in range(50):
        rows, kept = [], set()
        for epoch in range(1, 12):
            clean, robust = chance.uniform(0.8, 0.95), chance.uniform(0.4, 0.6)
            rows.append(row(epoch, clean, robust, 0.04))
            wanted = {
                row.epoch for row in worth_keeping(rows, clean_cost=cost, reference=reference)
            }
            assert wanted <= kept | {epoch}
            assert choose(rows, clean_cost=cost, reference=reference).epoch in wanted
            kept = wanted


COLLAPSE = [
    *run((80, 50), (84, 55), fgsm=0.58),
    row(3, 0.88, 0.06, 0.04, loss=0.4, fgsm=0.8),
]


@pytest.mark.parametrize(
    ("rows", "kind", "back_to"),
    [
        (COLLAPSE, "collapse", 2),
        ([*run((80, 50)), *run((88, 6), start=2, fgsm=0.21)], "collapse", 1),
        ([*run((80, 50), (84, 55)), row(3, 0.88, 0.06, 0.04, loss=0.4)], "collapse", 2),
        ([*run((80, 50), (84, 55)), row(3, 0.7, 0.06, 0.04, loss=0.4)], "collapse", 2),
        ([*run((80, 2)), row(2, 0.85, 0.01, 0.04, fgsm=0.7)], "collapse", 1),
        ([*run((80, 50)), *run((80, 75), start=2, fgsm=0.6)], "gradient masking", 1),
        (run((80, 75), fgsm=0.6), "gradient masking", None),
        ([*run((80, 50)), *run((80, 75), start=2, zero=0.1)], "gradient masking", 1),
        ([*run((80, 60), eps=0.01), *run((80, 75), start=2, zero=0.1)], "gradient masking", 1),
        ([*run((80, 20), eps=0.02), row(2, 0.9, 0.03, 0.04, fgsm=0.85)], "collapse", 1),
        ([*run((80, 20), eps=0.02), row(2, 0.9, 0.03, 0.03, fgsm=0.85)], "collapse", 1),
        ([*run((80, 50)), row(2, 0.3, 0.0, 0.04, loss=float("nan"))], "divergence", 1),
    ],
    ids=[
        "several steps fail, one does not",
        "several steps fail, one does less so",
        "no single step measured",
        "and clean falls, but so does the loss",
        "never robust",
        "many steps weaker than one",
        "at once",
        "no gradients",
        "as the ramp ends",
        "collapse as the ramp ends",
        "collapse within the ramp",
        "no loss any more",
    ],
)
def test_an_alarm(rows, kind, back_to):
    alarm = watch(rows)
    assert (alarm.kind, alarm.epoch, alarm.back_to) == (kind, rows[-1].epoch, back_to)
    assert alarm.sentence.startswith(f"Epoch {rows[-1].epoch}: ")
    assert kind == "divergence" or f"{rows[-1].validation_robust_accuracy:.1%}" in alarm.sentence
    assert not alarm.ends_training
    assert watch(rows[:-1]) is None


def test_an_epoch_that_went_astray_is_not_kept():
    """A collapsed network is accurate on clean slices: it is the one that a clean cost alone would
    take.
    """
    assert choose(COLLAPSE, clean_cost=1.0, reference=0.89).epoch == 2
    assert [row.epoch for row in pareto_front(COLLAPSE)] == [2]
    masked = [*run((80, 50)), *run((80, 75), start=2, fgsm=0.6)]
    assert choose(masked).epoch == 1
    assert choose(masked[1:]).epoch == 2, "where all are, one has to be"


def test_training_never_goes_back_to_an_epoch_that_went_astray():
    """Not even where the only epochs at full eps are such."""
    fallen = {"fgsm": 0.85, "loss": 0.3}
    rows = [
        *run((80, 20), eps=0.02),
        row(2, 0.9, 0.03, 0.04, **fallen),
        row(3, 0.9, 0.02, 0.04, **fallen),
    ]
    assert [(alarm.epoch, alarm.back_to) for alarm in alarms(rows)] == [(2, 1), (3, 1)]
    rows.append(row(4, 0.8, 0.4, 0.04, fgsm=0.45))
    assert choose(rows).epoch == 4
    assert rollback_epoch(rows).epoch == 4


def test_a_clean_cost_that_is_not_met_does_not_lead_back_to_the_least_robust():
    rows = [
        *run((88, 10), (84, 30), (82, 45), (80, 50), fgsm=0.5),
        row(5, 0.9, 0.02, 0.04, fgsm=0.8),
    ]
    assert choose(rows[:4], clean_cost=1.0, reference=0.95).epoch == 1
    assert watch(rows, clean_cost=1.0, reference=0.95).back_to == 4


def test_without_a_sound_epoch_there_is_no_refuge():
    assert rollback_epoch([]) is None
    assert rollback_epoch([row(1, 0.9)]) is None
    assert rollback_epoch(run((80, 75), fgsm=0.6)) is None


def test_after_a_rollback_there_is_no_alarm_until_the_next():
    rows = [
        *COLLAPSE,
        *run((83, 54), (84, 56), start=4, fgsm=0.58, loss=0.7),
        row(6, 0.9, 0.0, 0.04, fgsm=0.9),
    ]
    assert [(alarm.epoch, alarm.back_to) for alarm in alarms(rows)] == [(3, 2), (6, 5)]


def overfitting(points, epochs=10):
    """Robust accuracy falls by some points in all once the learning rate is small, and the loss
    falls with it.
    """
    before = [row(n, 0.8, 0.55, 0.04, loss=1.2, rate=0.1) for n in range(1, 7)]
    return [
        *before,
        *(
            row(6 + n, 0.85, 0.55 - points / 100 * n / epochs, 0.04, loss=1.2 - 0.05 * n, rate=0.01)
            for n in range(1, epochs + 1)
        ),
    ]


def test_robust_overfitting_ends_training():
    rows = overfitting(12)
    first = alarms(rows)[0]
    assert (first.kind, first.ends_training) == ("robust overfitting", True)
    assert first.epoch < 16
    assert first.back_to == choose(rows[: first.epoch - 1]).epoch
    assert watch(rows, clean_cost=1.0, reference=0.80)
    assert watch(rows, clean_cost=1.0, reference=0.99) is None, (
        "no epoch is accurate enough yet, and clean rises"
    )


def noisy(seed, *, points=3.0, slices=48):
    """A sound run of 40 epochs: a ramp of eps, then slow progress, each figure off by some points,
    on few slices.
    """
    chance = random.Random(seed)

    def seen(value):
        return min(
            max(round((value + chance.uniform(-points, points) / 100) * slices) / slices, 0.0), 1.0
        )

    rows = []
    for n in range(1, 41):
        eps = 0.04 * min(1.0, n / 5)
        robust = 0.95 - 9.0 * eps if n < 5 else 0.59 + 0.002 * n
        rows.append(
            row(
                n,
                seen(0.9),
                seen(robust),
                eps,
                fgsm=seen(robust + 0.03),
                zero=0.0,
                loss=1.0 - 0.01 * n,
                rate=0.05 * (1 - n / 41),
            )
        )
    return rows


@pytest.mark.parametrize("seed", range(20))
def test_noise_and_the_ramp_are_no_alarm(seed):
    rows = noisy(seed)
    assert alarms(rows) == []
    assert alarms([without_single_step(row) for row in rows]) == []


def without_single_step(kept):
    return row(
        kept.epoch,
        kept.validation_accuracy,
        kept.validation_robust_accuracy,
        kept.eps,
        loss=kept.train_loss,
        rate=kept.learning_rate,
    )


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(1, 0.9), row(2, 0.3)],
        run((90, 90), (50, 20), eps=0.0),
        run((46, 46), (70, 20)),
        [*run((46, 46), fgsm=0.46), *run((70, 20), start=2, fgsm=0.25)],
        [*run((80, 50)), row(2, 0.4, 0.2, 0.04, loss=2.0)],
        run((80, 20), (82, 8), fgsm=0.3),
        [*run((90, 80), fgsm=0.83), *run((92, 60), start=2, fgsm=0.78)],
        run((80, 0), fgsm=0.6),
        [*run((95, 80), eps=0.02), *run((93, 30), start=2, fgsm=0.5)],
        overfitting(3),
        [row(n, 0.8, 0.5 - 0.01 * n, 0.04, loss=2 - 0.1 * n) for n in range(1, 15)],
        [row(n, 0.8, 0.5 - 0.01 * n, 0.04, loss=1.0, rate=0.1 / n) for n in range(1, 15)],
    ],
    ids=[
        "nothing",
        "no attack",
        "eps 0",
        "one class, then learning",
        "the same with one step",
        "clean fell too",
        "was hardly robust",
        "most is left",
        "the first epoch of a repair",
        "eps grew",
        "a small fall",
        "a large learning rate",
        "a loss that stands still",
    ],
)
def test_no_alarm(rows):
    assert alarms(rows) == []


def test_rows_of_older_runs_can_be_read():
    old = {
        "epoch": 1,
        "learning_rate": 0.1,
        "eps": 0.0,
        "train_loss": 1.0,
        "validation_accuracy": 0.5,
        "validation_robust_accuracy": None,
        "seconds": 1.0,
    }
    assert msgspec.convert(old, Epoch) == row(1, 0.5)


def test_the_log_of_a_run_is_read_back(tmp_path):
    rows = [row(1, 0.5, 0.25, 0.02, fgsm=0.5), row(2, 0.5, None, 0.04, zero=0.0)]
    rows.append(row(3, 0.5, 0.0, 0.04, loss=float("inf")))
    with open(tmp_path / "epochs.csv", "w", newline="") as stream:
        table = csv.DictWriter(stream, Epoch.__struct_fields__)
        table.writeheader()
        table.writerows(msgspec.to_builtins(row) for row in rows)
    assert read_epochs(tmp_path) == rows


def by_class(epoch, clean, robust, worst, worst_robust):
    return msgspec.structs.replace(
        row(epoch, clean, robust, 0.04, fgsm=robust),
        worst_class_accuracy=worst,
        worst_class_robust_accuracy=worst_robust,
    )


def test_the_worst_class_counts():
    """The first looks more robust: it answers with two of three classes."""
    rows = [by_class(1, 0.66, 0.6, 0.0, 0.0), by_class(2, 0.7, 0.5, 0.6, 0.4)]
    assert choose(rows).epoch == 2
    assert "worst class" in explain_choice(rows)


def test_a_class_that_is_lost_is_an_alarm():
    sound = by_class(1, 0.7, 0.4, 0.5, 0.2)
    alarm = watch([sound, by_class(2, 0.66, 0.6, 0.02, 0.0)])
    assert (alarm.kind, alarm.back_to) == ("class collapse", 1)
    assert "50.0%" in alarm.sentence
    assert choose([sound, by_class(2, 0.66, 0.66, 0.02, 0.0)]).epoch == 1
    # One that was never known is not lost yet.
    assert watch([by_class(1, 0.6, 0.4, 0.1, 0.0), by_class(2, 0.6, 0.4, 0.0, 0.0)]) is None
