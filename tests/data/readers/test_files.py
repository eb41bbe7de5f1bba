"""Which files are opened, how much of them is read, and what is left out by name."""

from __future__ import annotations

import errno
import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from robustmri.core.errors import DataError, RobustMRIError, SettingsError
from robustmri.data import limits
from robustmri.data.prepare import write_cohort
from robustmri.data.readers import files
from robustmri.data.readers.files import find_files, open_regular, read_bounded, read_regular
from robustmri.data.readers.source import LeftOut, RawSlice, Source
from robustmri.data.sources import open_source
from scans import OUTLINE, draw, write_mat


def class_folders(folder: Path, count: int = 8) -> Path:
    for number in range(count):
        path = folder / ("glioma", "meningioma")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(number, 0)).save(path)
    return folder


def release(folder: Path, count: int = 4) -> Path:
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        write_mat(folder / f"{number}.mat", draw(number, 0), OUTLINE, label=1.0 + number % 2)
    return folder


def zipped(folder: Path) -> Path:
    unpacked = release(folder.with_name("unpacked"))
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for file in sorted(unpacked.iterdir()):
            archive.write(file, file.name)
    return folder


LAYOUTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "images": (class_folders, "glioma/0.png"),
    "mat": (release, "1.mat"),
    "zip": (zipped, "a.zip"),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def left_out(source: Source) -> dict[str, str]:
    return {item.source: item.reason for item in source.read() if isinstance(item, LeftOut)}


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def plug(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # The name of a socket must be short.
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


KINDS = {"a pipe": pipe, "a device": device, "a socket": plug}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("kind", KINDS)
@layouts
def test_only_regular_files_are_opened(tmp_path: Path, layout: str, kind: str) -> None:
    make, name = LAYOUTS[layout]
    path = make(tmp_path / "scans") / name
    odd = path.with_name(f"odd{path.suffix}")
    KINDS[kind](odd)
    linked = path.with_name(f"linked{path.suffix}")
    linked.symlink_to(odd)
    left = left_out(open_source(tmp_path / "scans"))
    assert {Path(name).name for name in left} == {odd.name, linked.name}
    assert all(f"it is {kind}, not a regular file" in reason for reason in left.values())


def test_the_folds_are_read_from_a_regular_file_only(tmp_path: Path) -> None:
    os.mkfifo(release(tmp_path / "scans") / "cvind.mat")
    assert (
        "the folds are unknown: it is a pipe"
        in left_out(open_source(tmp_path / "scans"))["cvind.mat"]
    )


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"image")
    regular = (tmp_path / "2.png").stat()
    monkeypatch.setattr(Path, "stat", lambda path: regular)
    with pytest.raises(DataError, match="it is a pipe"):
        open_regular(tmp_path / "1.png")


def test_a_link_to_a_file_is_read_and_a_folder_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"image")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_regular(tmp_path / "link") == b"image"
    with pytest.raises(DataError, match="it is a folder"):
        read_regular(tmp_path)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EMFILE, r"Too many open files.*ulimit -n"),
        (errno.ENFILE, "Too many open files"),
        (errno.EIO, "Input/output error"),
        (errno.ESTALE, "Stale file handle"),
        (errno.ENOMEM, "Cannot allocate memory"),
        (errno.EACCES, r"Permission denied.*Make it readable"),
        (errno.ENOENT, r"No such file.*a moment ago"),
    ],
)
@layouts
def test_the_systems_trouble_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, number: int, says: str
) -> None:
    make, name = LAYOUTS[layout]
    source = open_source(make(tmp_path / "scans"))
    opened = os.open

    def fail(path: str | Path, flags: int, *mode: int) -> int:
        if Path(path).name == Path(name).name:
            raise OSError(number, os.strerror(number))
        return opened(path, flags, *mode)

    monkeypatch.setattr(files.os, "open", fail)
    with pytest.raises(RobustMRIError, match=rf"{name}.* could not be read: {says}") as caught:
        write_cohort(source, tmp_path / "cohort", size=16)
    assert "nothing was written" in str(caught.value)
    assert not (tmp_path / "cohort").exists()


@layouts
def test_a_folder_that_cannot_be_listed_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    scans = LAYOUTS[layout][0](tmp_path / "scans")
    (scans / "closed").mkdir()
    listed = os.scandir

    def fail(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return listed(path)

    monkeypatch.setattr(files.os, "scandir", fail)
    with pytest.raises(RobustMRIError, match="closed could not be read: Permission denied"):
        open_source(scans)


@pytest.mark.parametrize("layout", ["images", "mat"])
def test_a_link_that_leads_nowhere_is_no_damage(tmp_path: Path, layout: str) -> None:
    make, name = LAYOUTS[layout]
    path = make(tmp_path / "scans") / name
    path.unlink()
    path.symlink_to(tmp_path / "not-fetched")
    with pytest.raises(RobustMRIError, match=f"{name} could not be read.*leads nowhere"):
        list(open_source(tmp_path / "scans").read())


@layouts
def test_large_files_are_left_out_by_the_size_that_they_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    make, name = LAYOUTS[layout]
    path = make(tmp_path / "scans") / name
    if layout == "zip":
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("9.mat", bytes(100_000))
    else:
        os.truncate(path, 100_000)
    monkeypatch.setenv(limits.MAX_PIXELS, "4096")
    (reason,) = left_out(open_source(tmp_path / "scans")).values()
    assert "it claims 100000 bytes; the limit is 65536 bytes" in reason
    assert "set ROBUSTMRI_MAX_PIXELS higher" in reason


def test_no_more_is_read_than_was_claimed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))
    with open(tmp_path / "file", "rb") as stream, pytest.raises(DataError, match="more bytes"):
        read_bounded(stream, 999)


@pytest.mark.parametrize("text", ["many", "0", "-1", "1.5", "9" * 30, "\u0663"])
def test_a_limit_is_a_whole_number(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(limits.MAX_PIXELS, text)
    with pytest.raises(SettingsError, match="ROBUSTMRI_MAX_PIXELS must be a whole number"):
        limits.max_pixels()


def test_a_limit_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="65000 x 1 pixels, 4225000000 once it is padded"):
        limits.check_pixels(1, 65000)
    monkeypatch.setenv(limits.MAX_PIXELS, "4225000000")
    limits.check_pixels(1, 65000)


def test_hidden_names_and_links_to_folders_are_never_looked_into(tmp_path: Path) -> None:
    scans = class_folders(tmp_path / "scans")
    for name in (".git", "glioma/.ipynb_checkpoints", "__MACOSX/glioma"):
        (scans / name).mkdir(parents=True)
        (scans / name / "0.png").write_bytes((scans / "glioma/0.png").read_bytes())
    (scans / "glioma" / ".DS_Store").write_bytes(b"")
    (scans / "empty").mkdir()
    (scans / "pituitary").symlink_to(scans / "glioma")
    (scans / "round").symlink_to(scans)
    found = find_files(scans)
    assert [file.relative_to(scans).as_posix() for file in found.files] == [
        *(f"glioma/{number}.png" for number in (0, 2, 4, 6)),
        *(f"meningioma/{number}.png" for number in (1, 3, 5, 7)),
    ]
    assert {left.source: left.reason.split(",")[0] for left in found.left_out} == {
        ".git/": "a hidden folder",
        "__MACOSX/": "a hidden folder",
        "glioma/.DS_Store": "a hidden file",
        "glioma/.ipynb_checkpoints/": "a hidden folder",
        "empty/": "an empty folder",
        "pituitary/": "a link to a folder",
        "round/": "a link to a folder",
    }
    assert set(left_out(open_source(scans))) == {left.source for left in found.left_out}


def rename(path: Path, name: bytes) -> None:
    try:
        path.rename(path.parent / os.fsdecode(name))
    except OSError:
        pytest.skip("the file system has no such names")


@pytest.mark.parametrize("layout", ["images", "mat"])
def test_names_that_are_not_utf_8_are_spelt_out(tmp_path: Path, layout: str) -> None:
    make, name = LAYOUTS[layout]
    path = make(tmp_path / "scans") / name
    rename(path, b"M\xfcller\x1b[1m" + os.fsencode(path.suffix))
    sound = [item for item in open_source(tmp_path / "scans").read() if isinstance(item, RawSlice)]
    assert any("M\\xfcller\\x1b[1m" in item.case_id for item in sound)
    cohort = write_cohort(open_source(tmp_path / "scans"), tmp_path / "cohort", size=16)
    assert len(cohort) == len(sound)
    assert any("M\\xfcller" in case.source for case in cohort.cases)


def test_what_is_left_out_is_spelt_out_too(tmp_path: Path) -> None:
    scans = class_folders(tmp_path / "scans")
    (scans / "glioma" / "0.png").write_bytes(b"")
    rename(scans / "glioma" / "0.png", b"\xff\n.png")
    cohort = write_cohort(open_source(scans), tmp_path / "cohort", size=16)
    assert [left.source for left in cohort.left_out] == ["glioma/\\xff\\n.png"]
