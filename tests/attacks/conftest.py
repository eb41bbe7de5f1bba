"""The table of attacks. A new attack is a new row here, and every test of the contract runs on
it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustmri.attacks import ATTACKS, Attack, make_attack


@dataclass(frozen=True)
class Row:
    """An attack with small settings, and what it may cost an image that it cannot fool."""

    name: str
    gradients: int
    forwards: int
    settings: dict[str, Any] = field(default_factory=dict)
    # Gradients and forwards of a suite's members that do not know every norm.
    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    # Norms that a member does not know, and is run for in one of its own.
    elsewhere: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # Whether its result depends on the generator.
    random: bool = True

    @property
    def attack(self) -> Attack:
        return make_attack(self.name, **self.settings)

    @property
    def minimal(self) -> bool:
        return ATTACKS[self.name].facts.minimal

    @property
    def norms(self) -> tuple[str, ...]:
        return ATTACKS[self.name].facts.norms

    def cost(self, norm: str) -> tuple[int, int]:
        """Gradients and forwards in that norm, which some of a suite's members may not know, and
        are left out for, but those that run in their own.
        """
        left_out = [
            name
            for name in self.members
            if norm not in (*ATTACKS[name].facts.norms, *self.elsewhere.get(name, ()))
        ]
        saved = [self.members[name] for name in left_out]
        return (
            self.gradients - sum(gradients for gradients, _ in saved),
            self.forwards - sum(forwards for _, forwards in saved),
        )

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{name}={value}" for name, value in self.settings.items())])


ROWS = [
    Row("noise", 0, 1),
    Row("noise", 0, 3, {"draws": 3}),
    Row("fgsm", 1, 2, random=False),
    Row("bim", 4, 5, {"steps": 4}, random=False),
    Row("pgd", 4, 5, {"steps": 4}),
    Row("pgd", 4, 4, {"steps": 4, "keep": "last"}),
    Row("pgd", 9, 12, {"steps": 3, "restarts": 3}),
    Row("pgd", 9, 12, {"steps": 3, "restarts": 3, "stop_when_fooled": True}),
    Row("r-fgsm", 1, 2),
    Row("mi-fgsm", 4, 5, {"steps": 4}, random=False),
    Row("ni-fgsm", 4, 9, {"steps": 4}, random=False),
    Row("di-fgsm", 4, 9, {"steps": 4}),
    Row("ti-fgsm", 4, 5, {"steps": 4}, random=False),
    Row("vmi-fgsm", 7, 8, {"steps": 3, "neighbours": 2, "reach": 300.0}),
    Row(
        "vmi-fgsm",
        7,
        11,
        {"steps": 3, "neighbours": 2, "look_ahead": True, "diversity": 0.5, "kernel": 3},
    ),
    Row("cw", 4, 5, {"steps": 4}),
    Row("square", 0, 30, {"queries": 30}),
    Row("spsa", 0, 28, {"steps": 3, "samples": 4}),
    Row("spsa", 0, 28, {"steps": 3, "samples": 4, "rule": "steepest", "stop_when_fooled": True}),
    Row("universal", 3, 3, {"epochs": 3, "batch_size": 2}),
    Row("apgd", 6, 8, {"steps": 3, "restarts": 2}),
    Row("apgd", 8, 9, {"steps": 8, "stop_when_fooled": True}),
    Row("apgd-ce", 8, 9, {"steps": 8}),
    Row("apgd-dlr", 8, 9, {"steps": 8}),
    Row("apgd-t", 8, 11, {"steps": 4}),
    Row("deepfool", 10, 6, {"steps": 5}, random=False),  # Three classes: two gradients a step.
    Row("fmn", 10, 11, {"steps": 10}, random=False),
    Row("ddn", 10, 11, {"steps": 10}, random=False),
    Row("pgd-l0", 10, 11, {"steps": 10}, random=False),
    Row("ead", 30, 33, {"steps": 10, "searches": 3, "initial_c": 10.0}, random=False),
    Row("hop-skip-jump", 0, 8, {"steps": 3, "samples": 20, "starts": 7}),
    Row(
        "cw-l2",
        20,
        22,
        {"steps": 10, "searches": 2, "initial_c": 10.0, "learning_rate": 0.1},
        random=False,
    ),
    Row(  # DeepFool's ten steps towards two classes turn nothing: a look, then as the paper.
        "cw-l2",
        41,
        34,
        {"steps": 10, "searches": 2, "initial_c": 10.0, "learning_rate": 0.1, "start": "boundary"},
        random=False,
    ),
    Row(
        "nearest",
        49,
        60,
        {"steps": 5, "walk": 2, "presses": 1},
        # With the forward after each walk that tells which points fool.
        members={"deepfool": (4, 3), "ddn": (5, 6), "cw-l2": (15, 20), "ead": (20, 25)},
        elsewhere={"ddn": ("l1",)},
        random=False,
    ),
    Row("standard", 20, 33, {"steps": 4, "queries": 6}, members={"square": (0, 3), "fmn": (4, 6)}),
]


@pytest.fixture
def rows() -> list[Row]:
    return ROWS


TABLES = {
    "row": ROWS,
    "budget_row": [row for row in ROWS if not row.minimal],
    "minimal_row": [row for row in ROWS if row.minimal],
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`row`: every attack; `budget_row`: those with a radius; `minimal_row`: those without; with
    them, `norm`: each that the attack knows.
    """
    names = metafunc.fixturenames
    which = next((name for name in TABLES if name in names), "")
    if which and "norm" in names:
        cases = [(row, norm) for row in TABLES[which] for norm in row.norms]
        metafunc.parametrize((which, "norm"), cases, ids=[f"{row}-{norm}" for row, norm in cases])
    elif which:
        metafunc.parametrize(which, TABLES[which], ids=str)
    elif "norm" in names:
        marks = metafunc.definition.iter_markers("parametrize")
        if not any("norm" in mark.args[0] for mark in marks):
            metafunc.parametrize("norm", ["linf", "l2"])


class Counting(nn.Module):
    """Counts the images that go forward through a network, and those whose gradient comes back."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.forwards, self.gradients = network, 0, 0

    def forward(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        if images.requires_grad and torch.is_grad_enabled():
            images.register_hook(self._count)
        logits: Tensor = self.network(images)
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.gradients += len(gradient)


@pytest.fixture
def counting() -> type[Counting]:
    return Counting
