"""Published weights by name: which there are, and that what comes is what was meant."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from published import as_radimagenet, as_robustness, fill, torchvision_resnet, value_of
from robustmri.core.errors import CheckpointError, DownloadError, SettingsError
from robustmri.models.backbones import BACKBONES, build_classifier
from robustmri.models.starts import STARTS, fetch_address, fetch_start, find_start

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "start", STARTS.values(), ids=lambda start: f"{start.name}-{start.backbone}"
)
def test_every_start_is_complete_and_listed(start):
    assert start.backbone in BACKBONES
    assert start.url.startswith("https://")
    assert re.fullmatch("[0-9a-f]{64}", start.sha256)
    if start.name == "imagenet":  # What the publisher says of it.
        assert f"-{start.sha256[:8]}.pth" in start.file
    row = (
        f"| `{start.name}` | {start.backbone} | `{start.file}` | {start.megabytes:g} | "
        f"{start.licence} |"
    )
    assert row in (ROOT / "docs" / "repair.md").read_text(encoding="utf-8")


def test_no_two_starts_share_a_file():
    starts = STARTS.values()
    assert (
        len({start.file for start in starts})
        == len({start.sha256 for start in starts})
        == len(starts)
    )


def test_a_name_without_variant_means_its_default():
    assert find_start("robust-imagenet", "resnet50") == find_start(
        "robust-imagenet:linf-4", "resnet50"
    )


@pytest.mark.parametrize(
    ("weights", "backbone", "words"),
    [
        ("robust-imagenet:linf-3", "resnet50", "Did you mean 'robust-imagenet:linf-"),
        ("robust-imagenet:linf-8", "resnet18", r"\(there are for resnet50\)"),
        (
            "radimagenet",
            "vit",
            r"\(there are for densenet121, resnet50\). .*Choices: imagenet. Or none",
        ),
        ("imagenet:v2", "resnet18", "Did you mean 'imagenet'"),
    ],
)
def test_a_start_that_does_not_exist_is_named_with_those_that_do(weights, backbone, words):
    with pytest.raises(SettingsError, match=words):
        find_start(weights, backbone)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A local server; `cut` breaks the next answer off after so many bytes, and `gate` holds all of
    them back.
    """
    state = SimpleNamespace(files={}, asked=[], cut=[], url="", gate=threading.Event())
    state.gate.set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            state.asked.append((self.path, self.headers.get("Range")))
            body = state.files.get(self.path.lstrip("/").partition("?")[0])
            if body is None:
                self.send_error(404)
                return
            begin = int(
                (self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-")
            )
            state.gate.wait(10)
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - begin))
            self.end_headers()
            self.wfile.write(body[begin : begin + state.cut.pop() if state.cut else None])

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("ROBUSTMRI_CACHE", str(tmp_path / "cache"))
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def saved(content, folder):
    torch.save(content, folder / "made")
    return (folder / "made").read_bytes()


def offer(site, monkeypatch, name, backbone, content):
    """Put the content on the mirror as that start, whose hash becomes the content's."""
    start = STARTS[name, backbone]
    sha256 = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(STARTS, (name, backbone), replace(start, sha256=sha256))
    monkeypatch.setenv("ROBUSTMRI_WEIGHTS_URL", f"{site.url}/")
    site.files[start.file] = content
    return start.file


@pytest.mark.parametrize(
    ("name", "backbone", "publish", "mean"),
    [
        ("imagenet", "resnet18", dict, 0.449),
        ("robust-imagenet:l2-3", "resnet18", as_robustness, 0.449),
        ("radimagenet", "resnet50", as_radimagenet, 0.5),
    ],
)
def test_a_start_is_fetched_once_from_the_mirror(
    site, tmp_path, monkeypatch, name, backbone, publish, mean
):
    content = saved(publish(fill(torchvision_resnet(backbone))), tmp_path)
    file = offer(site, monkeypatch, name, backbone, content)
    seen = []
    for _ in range(2):
        classifier = build_classifier(
            backbone, ("a", "b"), 32, weights=name, progress=lambda *numbers: seen.append(numbers)
        )
        assert classifier.spec.weights.startswith(
            f"{name}, {file} (sha256 {hashlib.sha256(content).hexdigest()[:16]})"
        )
        assert classifier.spec.mean == mean
        weight = classifier.network.layer4[0].conv1.weight
        torch.testing.assert_close(
            weight, torch.full_like(weight, value_of("layer4.0.conv1.weight"))
        )
    assert site.asked == [(f"/{file}", None)]
    assert seen[-1] == (len(content), len(content))
    assert [path.name for path in (tmp_path / "cache" / "weights").iterdir()] == [file]


def test_a_transfer_that_broke_off_goes_on(site, monkeypatch):
    file = offer(site, monkeypatch, "robust-imagenet:linf-4", "resnet50", b"0123456789" * 100)
    start = find_start("robust-imagenet", "resnet50")
    site.cut.append(300)
    with pytest.raises(DownloadError, match="broke off after 300 of 1000 bytes"):
        fetch_start(start)
    assert fetch_start(start).read_bytes() == b"0123456789" * 100
    assert site.asked == [(f"/{file}", None), (f"/{file}", "bytes=300-")]


def test_processes_that_ask_together_fetch_once(site, tmp_path, monkeypatch):
    offer(site, monkeypatch, "robust-imagenet:linf-4", "resnet50", b"0123456789" * 100)
    start, came = find_start("robust-imagenet", "resnet50"), []
    site.gate.clear()
    asking = [
        threading.Thread(target=lambda: came.append(fetch_start(start).read_bytes()))
        for _ in range(2)
    ]
    for one in asking:
        one.start()
    time.sleep(0.3)  # Long enough for both to have asked, if both did.
    site.gate.set()
    for one in asking:
        one.join()
    assert came == [b"0123456789" * 100] * 2
    assert len(site.asked) == 1
    assert [path.name for path in (tmp_path / "cache" / "weights").iterdir()] == [start.file]


@pytest.mark.parametrize(
    ("name", "backbone"), [("imagenet", "vit"), ("radimagenet", "densenet121")]
)
def test_another_file_under_the_name_is_refused(site, tmp_path, monkeypatch, name, backbone):
    file = offer(site, monkeypatch, name, backbone, b"what was meant")
    site.files[file] = b"what came"
    with pytest.raises(DownloadError, match="sha256"):
        build_classifier(backbone, ("a", "b"), 32, weights=name)
    assert not list((tmp_path / "cache" / "weights").iterdir())


def test_offline_the_message_names_the_place_for_the_file(site, tmp_path, monkeypatch):
    content = saved(as_robustness(fill(torchvision_resnet("resnet18"))), tmp_path)
    file = offer(site, monkeypatch, "robust-imagenet:linf-4", "resnet18", content)
    monkeypatch.setenv("ROBUSTMRI_WEIGHTS_URL", "http://127.0.0.1:9")  # Nobody listens there.
    place = tmp_path / "cache" / "weights" / file
    with pytest.raises(DownloadError) as caught:
        build_classifier("resnet18", ("a", "b"), 32, weights="robust-imagenet")
    assert f"put it at {place};" in str(caught.value)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    said = build_classifier("resnet18", ("a", "b"), 32, weights="robust-imagenet").spec.weights
    assert said.startswith(f"robust-imagenet:linf-4, {file} (sha256 ")


def test_an_address_with_its_hash_is_fetched(site, tmp_path):
    content = saved(as_robustness(fill(torchvision_resnet("resnet18"))), tmp_path)
    site.files["a/own.ckpt"] = content
    digits = hashlib.sha256(content).hexdigest()
    spec = build_classifier(
        "resnet18", ("a", "b"), 32, weights=f"{site.url}/a/own.ckpt#sha256={digits}"
    ).spec
    assert spec.weights.startswith(
        f"{site.url}/a/own.ckpt, {digits[:8]}-own.ckpt (sha256 {digits[:16]})"
    )
    with pytest.raises(DownloadError, match="sha256"):
        build_classifier(
            "resnet18", ("a", "b"), 32, weights=f"{site.url}/a/own.ckpt#sha256={'0' * 64}"
        )


@pytest.mark.parametrize("end", ["", "#sha256=", "#sha256=12345678", f"#sha256={'x' * 64}"])
def test_an_address_without_its_hash_is_not_fetched(site, end):
    with pytest.raises(
        SettingsError, match=r"own.ckpt is only fetched if its sha256 is known: write URL#sha256="
    ):
        build_classifier("resnet18", ("a", "b"), 32, weights=f"{site.url}/own.ckpt{end}")
    assert not site.asked


@pytest.mark.parametrize("scheme", ["http", "file", "ftp"])
def test_an_address_is_fetched_by_https_alone(site, scheme):
    weights = f"{scheme}://example.org/own.ckpt#sha256={'0' * 64}"
    with pytest.raises(SettingsError, match=r"--weights .* must begin with https://"):
        build_classifier("resnet18", ("a", "b"), 32, weights=weights)


@pytest.mark.parametrize(
    ("mirror", "says"),
    [
        ("mirror.example.org/weights", "must begin with https://"),
        ("http://mirror.example.org", "must begin with https://"),
        ("file:///mnt/weights", "must begin with https://"),
        ("https://b\u00fccher.example", "character"),
    ],
)
def test_an_odd_mirror_is_one_sentence(site, monkeypatch, mirror, says):
    monkeypatch.setenv("ROBUSTMRI_WEIGHTS_URL", mirror)
    with pytest.raises(SettingsError, match=rf"\$ROBUSTMRI_WEIGHTS_URL .*{says}"):
        build_classifier("resnet18", ("a", "b"), 32, weights="imagenet")


def test_a_mirror_that_knows_the_first_eight_digits_is_refused(site, tmp_path, monkeypatch):
    """One can make a file whose sha256 begins as one likes."""
    file = offer(site, monkeypatch, "imagenet", "resnet18", b"what was meant")
    start = STARTS["imagenet", "resnet18"]
    forged = hashlib.sha256(b"what came").hexdigest()[:8] + start.sha256[8:]
    monkeypatch.setitem(STARTS, ("imagenet", "resnet18"), replace(start, sha256=forged))
    site.files[file] = b"what came"
    with pytest.raises(DownloadError, match="sha256"):
        build_classifier("resnet18", ("a", "b"), 32, weights="imagenet")


def test_a_mirror_cannot_fill_the_disk(site, tmp_path, monkeypatch):
    file = offer(site, monkeypatch, "imagenet", "resnet18", b"what was meant")
    start = STARTS["imagenet", "resnet18"]
    monkeypatch.setitem(STARTS, ("imagenet", "resnet18"), replace(start, megabytes=0.001))
    site.files[file] = b"?" * 2000
    with pytest.raises(DownloadError, match="announces 2000 bytes, expected at most 1153"):
        build_classifier("resnet18", ("a", "b"), 32, weights="imagenet")


def test_an_address_becomes_a_name_that_every_disk_takes(site, tmp_path):
    odd = "a%2f..%2f:b" * 30
    site.files[f"x/{odd}"] = b"content"
    digits = hashlib.sha256(b"content").hexdigest()
    path = fetch_address(f"{site.url}/x/{odd}?v=1#sha256={digits}")
    assert path.parent == tmp_path / "cache" / "weights"
    assert len(path.name) <= 120
    assert re.fullmatch(r"[\w.-]+", path.name)


def test_a_start_of_another_network_does_not_fit(site, tmp_path, monkeypatch):
    content = saved(as_robustness(fill(torchvision_resnet("resnet50"))), tmp_path)
    offer(site, monkeypatch, "robust-imagenet:linf-4", "resnet18", content)
    with pytest.raises(
        CheckpointError, match=r"does not fit resnet18 \(.* unexpected: layer1.0.conv3.weight"
    ):
        build_classifier("resnet18", ("a", "b"), 32, weights="robust-imagenet")
