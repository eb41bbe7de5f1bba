"""Toy networks, small and built anew for every test, so that nothing one test does reaches another;
a toy cohort.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from tiny import tiny_network, write_scans

SIDE = 8
# Looking for doctests, pytest would import these: a conftest a second time, under one name with all
# others; the pretended accelerator changes torch for the whole process.
collect_ignore_glob = ["*conftest.py", "pretended_gpu.py"]

# Of the tests of properties: the same few examples every time; `--hypothesis-profile deep` (`make
# test-slow`) draws many new ones.
settings.register_profile("fast", max_examples=25, derandomize=True, deadline=None, database=None)
settings.register_profile("deep", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile("fast")


def pytest_collection_finish() -> None:
    """What is there by now stays: to search it for garbage again and again takes a tenth of the
    time.
    """
    gc.collect()
    gc.freeze()


def _smooth(classes: int, activation: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        activation(),
        nn.Conv2d(4, 6, 3, stride=2),
        activation(),
        nn.Flatten(),
        nn.Linear(6 * 3 * 3, classes),
    )


def _batch_norm(classes: int) -> nn.Sequential:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 3 * 3, classes),
    )
    scatter_statistics(network)
    return network


def _volume(classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(1, 3, 3), nn.Tanh(), nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Linear(24, classes)
    )


_KINDS: dict[str, Callable[[int], nn.Sequential]] = {
    "linear": lambda classes: nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, classes)),
    "tanh": lambda classes: _smooth(classes, nn.Tanh),
    "softplus": lambda classes: _smooth(classes, nn.Softplus),
    "batch_norm": _batch_norm,
    "volume": _volume,
}


def scatter_statistics(network: nn.Module) -> None:
    """Give every batch-norm statistics and weights far from those of a new one, where mistakes
    would not show.
    """
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)


@pytest.fixture
def make_network() -> Callable[..., nn.Module]:
    """Kind, number of classes, seed to a network in double precision, in training mode as a new one
    is.
    """

    def make(kind: str, classes: int = 3, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = _KINDS[kind](classes).double()
        grey = torch.full(
            (1, 1, 5, 6, 7) if kind == "volume" else (1, 1, SIDE, SIDE), 0.5, dtype=torch.float64
        )
        # Undecided about a grey image: else random weights give every image the same class.
        with torch.no_grad():
            cast(nn.Linear, network[-1]).bias.sub_(network.eval()(grey)[0])
        return network.train()

    return make


@pytest.fixture
def make_images() -> Callable[..., Tensor]:
    """Number of images to grey images in double precision that reach exactly 0 and 1, as MRI slices
    do.
    """

    def make(n: int, *shape: int, seed: int = 1) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        values = torch.rand(
            n, 1, *(shape or (SIDE, SIDE)), generator=generator, dtype=torch.float64
        )
        return (1.6 * values - 0.3).clamp(0, 1)

    return make


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def draw_blobs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """A bright spot in one of three places on a black background, under noise: a task learnt in
    seconds.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    centres = torch.tensor([[2.5, 2.5], [2.5, 8.5], [8.5, 5.5]])[labels] + torch.randn(
        n, 2, generator=generator
    )
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    squared = (rows - centres[:, 0, None, None]) ** 2 + (columns - centres[:, 1, None, None]) ** 2
    heights = 0.4 + 0.4 * torch.rand(n, 1, 1, generator=generator)
    images = (
        heights * torch.exp(-squared / 6) + 0.15 * torch.randn(n, 12, 12, generator=generator) - 0.1
    )
    return images.clamp(0, 1)[:, None], labels


@pytest.fixture(scope="session")
def trained() -> nn.Module:
    """A network that names the place of the spot; in evaluation mode. Use it, do not change it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * 3 * 3, 3),
        )
    images, labels = draw_blobs(1024, seed=0)
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    for epoch in range(8):
        order = torch.randperm(1024, generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimiser.step()
    for parameter in network.parameters():
        parameter.grad = None
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def blobs(trained: nn.Module) -> tuple[Tensor, Tensor]:
    """Unseen images of the trained network's task, and their labels."""
    images, labels = draw_blobs(128, seed=1)
    assert (trained(images).argmax(1) == labels).float().mean() > 0.9
    return images, labels


@pytest.fixture(scope="session")
def tiny_scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source with a CSV: 27 patients, 108 slices. Read it, do not change it."""
    return write_scans(tmp_path_factory.mktemp("tiny") / "scans")


@pytest.fixture(scope="session")
def tiny_cohort(tiny_scans: Path) -> Path:
    """The cohort folder of it, 32 px, split by patient. Read it, do not change it."""
    from robustmri.verbs.prepare import prepare

    return prepare(tiny_scans, tiny_scans.parent / "cohort", size=32).root


@pytest.fixture(scope="session")
def use_few_probes() -> Callable[[pytest.MonkeyPatch], None]:
    """From now on an evaluation probes its network on few slices, in few steps."""

    def use(patch: pytest.MonkeyPatch) -> None:
        from robustmri.attacks import PGD

        for name, size in {"SLICES": 4, "STANDING": 2, "QUERIES": 8, "MANY_QUERIES": 16}.items():
            patch.setattr(f"robustmri.evaluation.probes.{name}", size)
        for name, steps in {"PLENTY": 8, "USUAL": 6}.items():
            short = PGD(steps=steps, loss="margin", stop_when_fooled=True)
            patch.setattr(f"robustmri.evaluation.probes.{name}", short)

    return use


@pytest.fixture(scope="session")
def use_tiny_networks(
    use_few_probes: Callable[[pytest.MonkeyPatch], None],
) -> Callable[[pytest.MonkeyPatch], None]:
    """From now on every name of a network builds the small one, which is probed on few slices."""

    def use(patch: pytest.MonkeyPatch) -> None:
        # Imported only now, checkpoint would take the small one for the original, and keep it.
        import robustmri.models.checkpoint  # noqa: F401

        use_few_probes(patch)
        patch.setattr("robustmri.models.backbones.build_network", tiny_network)
        patch.setattr("robustmri.models.checkpoint.build_network", tiny_network)

    return use


@pytest.fixture
def tiny_networks(
    monkeypatch: pytest.MonkeyPatch, use_tiny_networks: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """The same, for one test."""
    use_tiny_networks(monkeypatch)


@pytest.fixture(scope="session")
def tiny_run(tiny_cohort: Path, use_tiny_networks: Callable[[pytest.MonkeyPatch], None]) -> Path:
    """A run folder with the small network trained on it; whoever loads it needs `tiny_networks`."""
    from robustmri.verbs.train import train

    with pytest.MonkeyPatch.context() as patch:
        use_tiny_networks(patch)
        return train(
            tiny_cohort,
            tiny_cohort.parent / "run",
            epochs=5,
            batch_size=16,
            augment="none",
            precision="fp32",
        )
