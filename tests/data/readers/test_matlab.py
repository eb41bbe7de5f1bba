"""A .mat file gives numbers of its own: of no other file, and no more than a slice needs."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from robustmri.core.errors import DataError
from robustmri.data import limits
from robustmri.data.readers.matlab import read_numbers, read_struct
from robustmri.data.readers.source import LeftOut, RawSlice
from robustmri.data.sources import open_source
from scans import OUTLINE, draw, write_mat

SIDE = 64


def elsewhere(folder: Path) -> Path:
    """A file of this machine that no scan may show."""
    path = folder / "private.h5"
    with h5py.File(path, "w") as file:
        file["image"] = np.full((SIDE, SIDE), 77, np.uint8)
        file["cvind"] = np.ones((1, 3))
        file.create_group("cjdata")["image"] = file["image"]
    return path


def external_storage(group: h5py.Group, name: str, private: Path) -> None:
    group.create_dataset(
        name, (SIDE, SIDE), np.uint8, external=[(str(private), 0, h5py.h5f.UNLIMITED)]
    )


def external_link(group: h5py.Group, name: str, private: Path) -> None:
    group[name] = h5py.ExternalLink(str(private), "/image")


def soft_link(group: h5py.Group, name: str, private: Path) -> None:
    group["hop"] = h5py.ExternalLink(str(private), "/")
    group[name] = h5py.SoftLink(f"{group.name.rstrip('/')}/hop/image")


def virtual(group: h5py.Group, name: str, private: Path) -> None:
    layout = h5py.VirtualLayout((SIDE, SIDE), np.uint8)
    layout[:] = h5py.VirtualSource(str(private), "image", (SIDE, SIDE))
    group.create_virtual_dataset(name, layout)


def virtual_without_end(group: h5py.Group, name: str, private: Path) -> None:
    """To ask it for its shape opens the files that it is made of."""
    endless = h5py.h5s.UNLIMITED
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    target = h5py.h5s.create_simple((1, SIDE), (endless, SIDE))
    target.select_hyperslab((0, 0), (endless, 1), (1, 1), (1, SIDE))
    source = h5py.h5s.create_simple((1, SIDE))
    how.set_virtual(target, str(private).encode() + b"%b", b"image", source)
    space = h5py.h5s.create_simple((1, SIDE), (endless, SIDE))
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.NATIVE_UINT8, space, how)


def reference(group: h5py.Group, name: str, private: Path) -> None:
    group["other"] = np.zeros(3)
    group.create_dataset(name, data=np.array([group["other"].ref]), dtype=h5py.ref_dtype)


def texts(group: h5py.Group, name: str, private: Path) -> None:
    group.create_dataset(name, data=["a", "b"], dtype=h5py.string_dtype())


def complex_numbers(group: h5py.Group, name: str, private: Path) -> None:
    group[name] = np.ones((SIDE, SIDE), complex)


def folder(group: h5py.Group, name: str, private: Path) -> None:
    group.create_group(name)


def only_a_size(group: h5py.Group, name: str, private: Path) -> None:
    group.create_dataset(name, (10**6, 10**6), np.int16, chunks=(64, 64), fillvalue=3)


def large_chunk(group: h5py.Group, name: str, private: Path) -> None:
    group.create_dataset(name, (2, 2), np.int16, chunks=(40_000, 40_000), maxshape=(None, None))


def other_filter(group: h5py.Group, name: str, private: Path) -> None:
    group.create_dataset(name, data=np.zeros((SIDE, SIDE)), compression="lzf")


HOSTILE: dict[str, tuple[Callable[[h5py.Group, str, Path], None], str]] = {
    "external storage": (external_storage, "lie in another file"),
    "external link": (external_link, "is a link"),
    "soft link": (soft_link, "is a link"),
    "virtual dataset": (virtual, "lie in another file"),
    "virtual dataset without end": (virtual_without_end, "lie in another file"),
    "object reference": (reference, "holds references"),
    "texts": (texts, "references or texts of any length"),
    "complex numbers": (complex_numbers, "complex numbers"),
    "group": (folder, "is not an array"),
    "fill value": (only_a_size, "claims 1000000000000 values; the limit is 67108864"),
    "large chunk": (large_chunk, "claims 1600000000 values"),
    "filter": (other_filter, "compressed in a way that MATLAB does not use"),
}
hostile = pytest.mark.parametrize("case", HOSTILE)


@pytest.mark.parametrize("field", ["image", "PID", "tumorMask"])
@hostile
def test_a_slice_shows_its_own_file_only(tmp_path: Path, case: str, field: str) -> None:
    plant, words = HOSTILE[case]
    scans = tmp_path / "scans"
    scans.mkdir()
    write_mat(scans / "1.mat", draw(1, 0), OUTLINE, leave=(field,))
    write_mat(scans / "2.mat", draw(2, 0), OUTLINE)
    with h5py.File(scans / "1.mat", "r+") as file:
        plant(file["cjdata"], field, elsewhere(tmp_path))
    left, sound = open_source(scans).read()
    assert isinstance(left, LeftOut)
    assert words in left.reason
    assert isinstance(sound, RawSlice)


@hostile
def test_folds_are_of_their_own_file_only(tmp_path: Path, case: str) -> None:
    plant, words = HOSTILE[case]
    path = tmp_path / "cvind.mat"
    with h5py.File(path, "w") as file:
        plant(file, "cvind", elsewhere(tmp_path))
    with pytest.raises(DataError) as caught:
        read_numbers(path.read_bytes(), "cvind")
    assert words in str(caught.value) or case == "group"


@pytest.mark.parametrize("link", [h5py.SoftLink, lambda path: h5py.ExternalLink(path, "cjdata")])
def test_the_struct_itself_is_no_link(tmp_path: Path, link: Callable[[str], object]) -> None:
    with h5py.File(tmp_path / "1.mat", "w") as file:
        file["cjdata"] = link(str(elsewhere(tmp_path)))
    with pytest.raises(DataError, match="'cjdata' is a link"):
        read_struct((tmp_path / "1.mat").read_bytes(), "cjdata", ["image"])


def test_fields_beside_the_five_are_not_read(tmp_path: Path) -> None:
    write_mat(tmp_path / "1.mat", draw(1, 0), OUTLINE)
    with h5py.File(tmp_path / "1.mat", "r+") as file:
        only_a_size(file["cjdata"], "other", tmp_path)
    (item,) = open_source(tmp_path).read()
    assert isinstance(item, RawSlice)


def bomb(shape: tuple[int, ...] = (SIDE, SIDE), size: int = 1 << 24) -> bytes:
    """A chunk of zeros that is `size` bytes, whatever its dataset says."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        group = file.create_group("cjdata")
        image = group.create_dataset("image", shape, np.uint8, chunks=shape, compression="gzip")
        image.id.write_direct_chunk((0,) * len(shape), zlib.compress(bytes(size)))
    return stream.getvalue()


def test_a_chunk_that_expands_without_end_is_not_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(limits.MAX_PIXELS, str(SIDE * SIDE))
    with pytest.raises(DataError, match="'image' expands to more than the limit"):
        read_struct(bomb(), "cjdata", ["image"])
    assert read_struct(bomb(size=SIDE * SIDE), "cjdata", ["image"])["image"].values.max() == 0


def test_compressed_slices_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As MATLAB writes them, also where a chunk is looked at first."""
    monkeypatch.setattr("robustmri.data.readers.matlab.MOST_EXPANSION", 1 << 40)
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        group = file.create_group("cjdata")
        how = {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": (16, 16)}
        group.create_dataset("image", data=draw(1, 0), **how)
    image = read_struct(stream.getvalue(), "cjdata", ["image"])["image"].values
    assert np.array_equal(image, draw(1, 0).T)


@pytest.mark.parametrize(
    ("values", "matlab_class", "patient"),
    [
        (np.array([[ord(letter)] for letter in "MR01"], np.uint16), "char", "MR01"),
        (np.array([[ord(letter)] for letter in "MR01"], np.uint16), "", "MR01"),
        (np.array([[ord(letter)] for letter in "MR01"], np.uint8), "", "MR01"),
        (np.array([[ord("7")]], np.uint16), "char", "7"),
        (np.array([[100360.0]]), "double", "100360"),
        (np.array([[100360.0]]), "", "100360"),
        (np.array([[55290]], np.uint16), "uint16", "55290"),
        (np.array([[2_000_000]], np.int32), "int32", "2000000"),
        (np.array([[2_000_000]], np.int32), "", "2000000"),
        (np.array([[np.nan]]), "double", None),
        (np.array([[ord(letter)] for letter in "nan"], np.uint16), "char", None),
        (np.array([[ord(" ")]], np.uint16), "char", None),
        (np.array([[1.5]]), "double", None),
        (np.array([[1.0, 2.0]]), "double", None),
        (np.array([[0xD800]], np.uint16), "char", None),
        (np.array([[7]], np.uint16), "char", None),
        (np.full((400, 1), 65, np.uint16), "char", None),
    ],
)
def test_ids_as_text_and_as_numbers(
    tmp_path: Path, values: np.ndarray, matlab_class: str, patient: str | None
) -> None:
    write_mat(tmp_path / "1.mat", draw(1, 0), OUTLINE, leave=("PID",))
    with h5py.File(tmp_path / "1.mat", "r+") as file:
        file["cjdata"]["PID"] = values
        if matlab_class:
            file["cjdata"]["PID"].attrs["MATLAB_class"] = np.bytes_(matlab_class)
    (item,) = open_source(tmp_path).read()
    if patient is None:
        assert isinstance(item, LeftOut)
        assert "PID" in item.reason or item.reason == "no patient id"
    else:
        assert isinstance(item, RawSlice)
        assert item.patient_id == patient


def test_matlab_5_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "1.mat", {"cjdata": {"label": 1.0, "image": draw(1, 0)}})
    (left,) = open_source(tmp_path).read()
    assert isinstance(left, LeftOut)
    assert "a MATLAB 5 file: save it again in MATLAB, by save(..., '-v7.3')" in left.reason


@pytest.mark.parametrize("folds", [[0, 1], [6, 1], [1.5, 1], [np.nan, 1], [1e300, 1]])
@pytest.mark.parametrize("version", ["v5", "v7.3"])
def test_folds_are_one_to_five(tmp_path: Path, version: str, folds: list[float]) -> None:
    write_mat(tmp_path / "1.mat", draw(1, 0), OUTLINE)
    if version == "v5":
        scipy.io.savemat(tmp_path / "cvind.mat", {"cvind": np.array(folds)})
    else:
        with h5py.File(tmp_path / "cvind.mat", "w") as file:
            file["cvind"] = np.array(folds)
    left, item = open_source(tmp_path).read()
    assert isinstance(left, LeftOut)
    assert "values other than the folds 1 to 5" in left.reason
    assert isinstance(item, RawSlice)
    assert item.fold is None


def test_matlab_5_folds_within_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    scipy.io.savemat(stream, {"cvind": np.ones((1000, 1000))}, do_compression=True)
    assert read_numbers(stream.getvalue(), "cvind").sum() == 1e6
    monkeypatch.setenv(limits.MAX_PIXELS, "4096")
    with pytest.raises(DataError, match="expands to more than the limit"):
        read_numbers(stream.getvalue(), "cvind")
    plain = io.BytesIO()
    scipy.io.savemat(plain, {"cvind": np.ones((1000, 1000))})
    with pytest.raises(DataError, match="'cvind' claims 1000000 values"):
        read_numbers(plain.getvalue(), "cvind")
    claimed = stream.getvalue()[:128] + struct.pack("<II", 15, 12) + b"not of zlib."
    with pytest.raises(DataError, match="cannot be read: 'a variable' is damaged"):
        read_numbers(claimed, "cvind")


def put(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo("x")
    member.filename = name  # As it is, backslashes and all.
    archive.writestr(member, content)


def test_everything_in_a_zip_is_read_or_named(tmp_path: Path) -> None:
    write_mat(tmp_path / "one.mat", draw(1, 0), OUTLINE)
    content = (tmp_path / "one.mat").read_bytes()
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "notes.txt").write_text("read me")
    with zipfile.ZipFile(scans / "a.zip", "w") as archive:
        for name in ("public\\1.mat", "2.MAT", "__MACOSX/._2.mat", "readme.txt", "in.zip", "3.mat"):
            put(archive, name, content)
        with pytest.warns(UserWarning, match="Duplicate name"):
            put(archive, "3.mat", content)
    with zipfile.ZipFile(scans / "b.ZIP", "w") as archive:
        put(archive, "4.mat", content)
        put(archive, "sub/5.mat", content)
        put(archive, "5.mat", content)
    (scans / "4.MAT").write_bytes(content)
    for name in ("a", "b"):
        (scans / name).mkdir()
        scipy.io.savemat(scans / name / "cvind.mat", {"cvind": np.ones(9)})
    items = list(open_source(scans).read())
    sound = {item.case_id: item.source for item in items if isinstance(item, RawSlice)}
    assert sound == {"1": "a.zip/public\\1.mat", "2": "a.zip/2.MAT", "4": "4.MAT"}
    left = [(item.source, item.reason) for item in items if isinstance(item, LeftOut)]
    assert dict(left) == {
        "b/cvind.mat": "the folds are read from another file",
        "notes.txt": "neither a .mat file nor a zip",
        "a.zip/__MACOSX/._2.mat": "hidden, or one of the system's",
        "a.zip/readme.txt": "not a .mat file",
        "a.zip/in.zip": "a zip in a zip: unpack the outer one",
        "a.zip/3.mat": "the zip has it more than once",
        "b.ZIP/5.mat": "b.ZIP/sub/5.mat is slice 5 as well",
        "b.ZIP/sub/5.mat": "b.ZIP/5.mat is slice 5 as well",
    }


def test_a_folder_of_nothing_but_zips_in_zips_gets_the_hint(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "1512427.zip", "w") as archive:
        put(archive, "in.zip", b"")
    with pytest.raises(DataError, match=r"1512427\.zip holds other zips\. Unpack it once"):
        open_source(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "size", "password", "method"])
def test_a_member_that_lies_is_left_out(tmp_path: Path, damage: str) -> None:
    write_mat(tmp_path / "one.mat", draw(1, 0), OUTLINE)
    scans = tmp_path / "scans"
    scans.mkdir()
    with zipfile.ZipFile(scans / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("1.mat", "2.mat"):
            archive.write(tmp_path / "one.mat", name)
    content = bytearray((scans / "a.zip").read_bytes())
    head, listed = 0, content.index(b"PK\1\2")
    if damage == "cut":
        content[100:130] = bytes(30)
    elif damage == "size":
        content[listed + 24 : listed + 28] = struct.pack("<I", 0xFFFFFFF0)
    elif damage == "password":
        content[head + 6] |= 1
        content[listed + 8] |= 1
    else:
        content[head + 8] = content[listed + 10] = 97
    (scans / "a.zip").write_bytes(content)
    left, sound = open_source(scans).read()
    assert isinstance(left, LeftOut)
    assert left.source == "a.zip/1.mat"
    assert isinstance(sound, RawSlice)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "bool"]
)
def test_matlab_5_as_scipy_reads_it(kind: str, compressed: bool) -> None:
    """scipy is killed by some damaged files; here it tells what sound ones hold."""
    values = np.random.default_rng(1).integers(0, 120, (3, 5)).astype(kind)
    stream = io.BytesIO()
    others = {"a": "text", "b": [[1, "x"]], "c": {"d": 1.0}, "e": 1j, "few": values[:1, :1]}
    scipy.io.savemat(stream, others | {"cvind": values}, do_compression=compressed)
    content = stream.getvalue()
    assert np.array_equal(read_numbers(content, "cvind"), values)
    assert np.array_equal(read_numbers(content, "few"), values[:1, :1])
    assert np.array_equal(read_numbers(content, "none"), values[:1, :1])


@pytest.mark.parametrize("names", [{"a": "text"}, {"a": 1j}, {}])
def test_matlab_5_without_numbers(names: dict[str, object]) -> None:
    stream = io.BytesIO()
    scipy.io.savemat(stream, names)
    with pytest.raises(DataError, match="it has no numbers in it"):
        read_numbers(stream.getvalue(), "cvind")
