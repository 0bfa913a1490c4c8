"""Checksums of the files that are read again: `checked.write_checked` and `checked.read_checked`."""

import io
import stat
import zipfile

import numpy as np
import pytest
from numpy.lib import format as npy

from featurize.disk import checked, durable, forms
from featurize.errors import VggftError
from heads import arrays


def write(folder, **files):
    checked.write_checked(folder, {f"{name}.csv": content for name, content in files.items()})


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data + b"\n",
        lambda data: bytes([data[0] ^ 1]) + data[1:],
    ],
)
def test_any_change_is_noticed(tmp_path, damage):
    write(tmp_path, a=b"1,2\n", b=b"3\n")
    path = tmp_path / "a.csv"
    assert checked.read_checked(path) == b"1,2\n"
    path.write_bytes(damage(b"1,2\n"))
    with pytest.raises(ValueError, match=r"not as vggft wrote it.*checksums\.json"):
        checked.read_checked(path)
    assert checked.read_checked(tmp_path / "b.csv") == b"3\n"
    write(tmp_path, a=b"4\n")
    assert checked.read_checked(path) == b"4\n"
    path.write_bytes(damage(b"1,2\n"))  # the damaged version is not remembered
    with pytest.raises(ValueError, match="not as vggft wrote it"):
        checked.read_checked(path)


def test_a_kill_between_record_and_file_leaves_both_readable(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_bytes(b"of an earlier version, without a record")
    for number in range(4):
        before = (tmp_path / "a.csv").read_bytes()
        with monkeypatch.context() as disturbed, pytest.raises(KeyboardInterrupt):
            disturbed.setattr(forms, "write_json", killed_after(forms.write_json))
            write(tmp_path, a=b"never written")
        assert checked.read_checked(tmp_path / "a.csv") == before
        write(tmp_path, a=f"{number}".encode())
        assert checked.read_checked(tmp_path / "a.csv") == f"{number}".encode()


def killed_after(write_json):
    def killed(*arguments):
        write_json(*arguments)
        raise KeyboardInterrupt

    return killed


def test_a_reader_beside_a_writer_sees_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    write(tmp_path, a=b"old")
    open_regular = durable.open_regular

    def meanwhile(path):
        file = open_regular(path)
        if path.name == "a.csv":
            monkeypatch.undo()
            write(tmp_path, a=b"newer")
            write(tmp_path, a=b"newest")
        return file

    monkeypatch.setattr(durable, "open_regular", meanwhile)
    assert checked.read_checked(tmp_path / "a.csv") == b"newest"


def test_folders_without_a_record_are_read_and_damaged_records_named(tmp_path):
    write(tmp_path, a=b"1")
    record = tmp_path / "checksums.json"
    sound = record.read_bytes()
    for damage in (b"", sound[: len(sound) // 2], b"[" * 100_000, b"[]", b'{"a.csv": 1}', b'{"a.csv": [NaN]}'):
        record.write_bytes(damage)
        with pytest.raises(ValueError, match=r"checksums\.json is damaged"):
            checked.read_checked(tmp_path / "a.csv")
    record.unlink()
    record.mkdir()
    with pytest.raises(ValueError, match=r"checksums\.json is damaged"):
        checked.read_checked(tmp_path / "a.csv")
    record.rmdir()
    assert checked.read_checked(tmp_path / "a.csv") == b"1"


@pytest.mark.parametrize("code", [22, 38, 95])
def test_folders_that_cannot_be_flushed_are_written_all_the_same(tmp_path, monkeypatch, code):
    flush = durable.os.fsync

    def refused(descriptor):
        if stat.S_ISDIR(durable.os.fstat(descriptor).st_mode):
            raise OSError(code, "cannot flush")
        flush(descriptor)

    monkeypatch.setattr(durable.os, "fsync", refused)
    write(tmp_path, a=b"1")
    assert checked.read_checked(tmp_path / "a.csv") == b"1"
    code = 5
    with pytest.raises(VggftError, match="cannot flush"):
        write(tmp_path, a=b"2")


def test_cells_that_spreadsheets_would_compute_are_text_and_read_back_unchanged(tmp_path):
    cells = ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "'=x", "''=x", "'x", "x=1", "a\rb", "a\nb", '"', "", "-0.5"]
    path = tmp_path / "a.csv"
    forms.write_csv(path, ["cell", "number"], [[cell, -0.5] for cell in cells])
    assert [row["cell"] for row in checked.read_csv(path)] == cells
    assert {row["number"] for row in checked.read_csv(path)} == {"-0.5"}
    lines = path.read_bytes().split(b"\r\n")
    assert not any(line.strip(b'"')[:1] in (b"=", b"+", b"-", b"@", b"\t", b"\r") for line in lines)


def test_a_field_of_any_length_or_a_broken_row_is_an_error_and_no_crash(tmp_path):
    path = tmp_path / "a.csv"
    for content in ("a,b\n" + "x" * 200_000 + ",y\n", "a,b\n1\n", "a,b\n1,2,3\n", 'a,b\n"1,2\n'):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"field|row"):
            checked.read_csv(path)


def _archive(arrays=None, **how):
    data = io.BytesIO()
    np.savez(data, **(arrays or {"a": np.arange(3.0)}), **how)
    return data.getvalue()


def _with_shape(shape):
    """Return an archive whose header claims another shape than its bytes have."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        member = io.BytesIO()
        npy.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": shape})
        archive.writestr("a.npy", member.getvalue() + bytes(24))
    return data.getvalue()


def test_archives_of_arrays_take_no_more_memory_than_they_have_bytes():
    assert np.array_equal(arrays.read(_archive())["a"], np.arange(3.0))
    compressed = io.BytesIO()
    np.savez_compressed(compressed, a=np.zeros(10**6))
    pickled = io.BytesIO()
    np.savez(pickled, a=np.array([{}], object))
    sound = _archive()
    for data, problem in (
        (compressed.getvalue(), "compressed"),
        (_with_shape((2**50,)), "but 1"),
        (_with_shape((4,)), "EOF"),
        (pickled.getvalue(), "shape"),
        (b"", "no archive"),
        (sound[:-30], "no archive"),
        (b"PK" + sound[2:100], "no archive"),
    ):
        with pytest.raises(ValueError, match=problem):
            arrays.read(data)
