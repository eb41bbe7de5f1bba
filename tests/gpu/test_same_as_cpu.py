"""The same outcomes on a GPU as on the CPU. It needs nothing of the other tests, and travels in a
bundle.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustmri.attacks import make_attack
from robustmri.attacks.engine import by_backpropagation, loss_against, random_points
from robustmri.evaluation.attacked import attack_batch
from robustmri.evaluation.exact import Exact, logits_of
from robustmri.models.backbones import build_classifier
from robustmri.models.classifier import Classifier, ClassifierSpec
from robustmri.models.optimised import OptimisedView, full_float32
from robustmri.threat.norms import NORMS
from robustmri.threat.threat_model import ThreatModel
from robustmri.training.augment import augmentation
from robustmri.training.batches import Examples
from robustmri.training.loop import fit
from robustmri.training.settings import TrainSettings

GPU = torch.device(os.environ.get("ROBUSTMRI_TEST_DEVICE", "cuda"))
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        GPU.type == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"
    ),
]
SIZE, CLASSES, EPS = 32, ("left", "middle", "right"), 0.15
ATTACKS = {
    "noise": {},
    "fgsm": {},
    "bim": {},
    "pgd": {"restarts": 3},
    "cw": {},
    "square": {"queries": 60},
    "spsa": {"steps": 3},
    "standard": {"steps": 20, "queries": 60},
    "fmn": {"steps": 40},
    "cw-l2": {"steps": 30, "searches": 3},
    "ddn": {"steps": 30},
}


def draw(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """A bright spot in one of three places under noise; much of the background is exactly 0."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    centres = 6 + 10 * labels[:, None, None] + 2 * torch.randn(n, 1, 1, generator=generator)
    spots = torch.exp(-((rows - 16) ** 2 + (columns - centres) ** 2) / 20.0)
    noise = 0.2 * torch.randn(n, SIZE, SIZE, generator=generator)
    return (0.6 * spots + noise - 0.1).clamp(0, 1)[:, None], labels


def build(seed: int = 0) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(256, 3),
        )
    return Classifier(network, ClassifierSpec(backbone="custom", classes=CLASSES, size=SIZE))


@pytest.fixture(scope="module")
def trained() -> Classifier:
    classifier = build().train()
    images, labels = draw(192, seed=0)
    optimiser = torch.optim.Adam(classifier.parameters(), lr=1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        nn.functional.cross_entropy(classifier(images), labels).backward()
        optimiser.step()
    for parameter in classifier.parameters():
        parameter.grad = None
    return classifier.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def on_gpu(trained: Classifier) -> Classifier:
    twin = build()
    twin.load_state_dict(trained.state_dict())
    return twin.to(GPU).eval().requires_grad_(False)


def test_float32_is_float32(trained, on_gpu):
    images, _ = draw(48, seed=1)
    with full_float32():
        there = logits_of(on_gpu, images.to(GPU)).cpu()
    assert torch.allclose(there, logits_of(trained, images), atol=1e-4)


def test_random_starts_are_the_same_numbers():
    images, _ = draw(8, seed=1)
    mask = torch.zeros(8, 1, SIZE, SIZE, dtype=torch.bool)
    mask[:, :, 8:, 8:] = True
    for norm in ("linf", "l2", "l1"):
        for region in (None, mask):
            here = ThreatModel(norm=norm, eps=EPS, mask=region)
            there = ThreatModel(norm=norm, eps=EPS, mask=None if region is None else mask.to(GPU))
            seeds = list(range(8))
            expected = random_points(images, here, seeds)
            found = random_points(images.to(GPU), there, seeds)
            assert found.device.type == GPU.type
            assert torch.allclose(found.cpu(), expected, atol=1e-6)


def test_the_gradient_is_the_same(trained, on_gpu):
    images, labels = draw(24, seed=1)
    found = []
    for classifier, device in ((trained, torch.device("cpu")), (on_gpu, GPU)):
        x, y = images.to(device), labels.to(device)
        view = OptimisedView(classifier, x[:2], precision="fp32")
        objective = loss_against("cross_entropy", y, ThreatModel())
        with full_float32():
            rows = torch.arange(len(y), device=device)
            found.append(by_backpropagation(view, x, rows, objective, {})[2].cpu().flatten())
    cosine = nn.functional.cosine_similarity(*found, dim=0)
    assert cosine > 0.9999


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_fool_the_same_images(name, masked, trained, on_gpu):
    images, labels = draw(48, seed=2)
    attack = make_attack(name, **ATTACKS[name])
    minimal = name in ("fmn", "cw-l2", "ddn")
    norm = "l2" if name in ("cw-l2", "ddn") else "linf"
    mask = torch.zeros(48, 1, SIZE, SIZE, dtype=torch.bool)
    mask[:, :, :, :20] = True
    outcomes = []
    for classifier, device in ((trained, torch.device("cpu")), (on_gpu, GPU)):
        region = mask.to(device) if masked else None
        threat = ThreatModel(norm=norm, eps=torch.inf if minimal else EPS, mask=region)
        x, y = images.to(device), labels.to(device)
        # On a GPU in bfloat16 where it has it, as in an evaluation.
        view = OptimisedView(classifier, x[:2], precision="fp32" if minimal else None)
        generator = torch.Generator().manual_seed(3)
        with full_float32():
            outcomes.append(
                attack_batch(attack, classifier, view, x, y, threat, generator=generator)
            )
    here, there = outcomes
    assert there.images.device.type == GPU.type
    assert bool(there.verified.all())
    differ = int((here.fooled != there.fooled.cpu()).sum())
    assert differ <= 3, f"{differ} of 48 images"
    if minimal:
        both = here.fooled & there.fooled.cpu()
        changes = [(one.images.cpu() - images)[both] for one in outcomes]
        near, far = (NORMS[norm].size(change).median() for change in changes)
        assert torch.isclose(near, far, rtol=0.05)


def test_points_are_recognised(on_gpu):
    images = draw(12, seed=1)[0].to(GPU)
    exact = Exact(on_gpu)
    first = exact(images)
    changed = images.clone()
    changed[3, 0, 5, 5] += 1e-3
    assert exact.knows(changed) == [row != 3 for row in range(12)]
    assert torch.equal(exact(images), first)


def test_augmentation_draws_the_same(trained):
    images, _ = draw(16, seed=1)
    for level in ("light", "standard"):
        change = augmentation(level)
        assert torch.allclose(change(images.to(GPU), 5).cpu(), change(images, 5), atol=1e-3)


@pytest.mark.skipif(GPU.type != "cuda", reason="the loop goes where CUDA is")
@pytest.mark.parametrize("objective", ["standard", "adversarial", "one-step", "free", "trades"])
def test_training_goes_the_same_way(objective, tmp_path, monkeypatch):
    learn, choose = (Examples(*draw(96, seed=seed)) for seed in (0, 1))
    settings = TrainSettings(
        objective=objective,
        epochs=4,
        batch_size=16,
        learning_rate=0.02,
        warmup_epochs=1.0,
        eps="0.05",
        attack_steps=3,
        guard_steps=4,
        ema_decay=0.9,
        precision="fp32",
    )
    rows = []
    for device in ("cuda", "cpu"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda device=device: device == "cuda")
        _, choice = fit(build(), learn, choose, settings, tmp_path / device)
        rows.append(choice.row)
    assert rows[0].train_loss == pytest.approx(rows[1].train_loss, rel=0.1)
    assert rows[0].validation_accuracy == pytest.approx(rows[1].validation_accuracy, abs=0.08)


@pytest.mark.skipif(GPU.type != "cuda", reason="a verb goes where CUDA is")
def test_files_come_out_of_every_verb(tmp_path: Path):
    from robustmri import evaluate, harden, prepare, train

    prepare("phantom:patients=9,slices=4,size=64", tmp_path / "cohort", size=64)
    small = {"epochs": 2, "batch_size": 8, "warmup_epochs": 0.5}
    train(tmp_path / "cohort", tmp_path / "plain", backbone="resnet18-half", **small)
    harden(tmp_path / "plain", tmp_path / "cohort", tmp_path / "hard", attack_steps=2, **small)
    options = {"standard": {"steps": 5, "queries": 20}, "cw-l2": {"steps": 5, "searches": 2}}
    for region in ("image", "brain", "lesion"):
        result = evaluate(
            tmp_path / "hard",
            tmp_path / "cohort",
            tmp_path / region,
            attacks=("noise", "fgsm", "pgd", "standard", "cw-l2"),
            curve=("2/255", "4/255"),
            options=options,
            region=region,
            target="" if region == "image" else "glioma",
        )
        assert result.checks
        assert (tmp_path / region / "examples.npz").is_file()


@pytest.mark.skipif(GPU.type != "cuda", reason="a matter of a card's memory and arithmetic")
def test_the_poster_network_fits():
    """ResNet-50 at 224 px, 128 slices at once, in bfloat16: finite gradients, and room to spare."""
    classifier = build_classifier("resnet50", CLASSES, 224).to(GPU).eval().requires_grad_(False)
    images = torch.rand(128, 1, 224, 224, device=GPU)
    labels = torch.zeros(128, dtype=torch.long, device=GPU)
    rows = torch.arange(128, device=GPU)
    view = OptimisedView(classifier, images[:2])
    torch.cuda.reset_peak_memory_stats()
    objective = loss_against("margin", labels, ThreatModel())
    gradient = by_backpropagation(view, images, rows, objective, {})[2]
    assert bool(torch.isfinite(gradient).all())
    share = torch.cuda.max_memory_allocated() / torch.cuda.get_device_properties(0).total_memory
    assert share < 0.5
