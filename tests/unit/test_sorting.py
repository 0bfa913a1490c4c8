"""Putting files into class folders and undoing it: names, bytes, lists, and that nothing of a person's is lost."""

import csv
import errno
import os
import random

import pytest
from conftest import snapshot
from small_sorting import across_disks, put, sha, undo_all, write

from featurize.disk import transfer
from featurize.errors import VggftError
from vggft.sorting import journal, target, undoing
from vggft.sorting.journal import Entry, Journal
from vggft.sorting.sorter import Sorter
from vggft.sorting.target import Target

HOWS = ("copy", "link", "move")


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def sorter(tmp_path, ui, how="copy", unsure="unsure", guarded=None):
    return Sorter(Target(tmp_path.resolve() / "sorted", unsure, guarded or {}), how, ui)


NAMES = {
    "newline": b"a\nb\r\n.png",
    "no Unicode": b"caf\xe9.png",
    "dash": b"-rf.png",
    "formula": b"=1+1.png",
    "quoted formula": b"'=1.png",
    "spaces": b"  .png  ",
    "longest": b"x" * 251 + b".png",
    "longest, in Unicode": "é".encode() * 125 + b".png",
    "no suffix": b"IMG_0001",
    "long suffix": b"a." + b"b" * 250,
    "comma": b'a,"b.png',
}


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_any_name_arrives_twice_and_comes_back(tmp_path, ui, how, name):
    """Two files of one name from different folders both arrive, whatever it is."""
    root = tmp_path / "photos"
    paths = [write(root / part / os.fsdecode(name), part.encode()) for part in ("one", "two")]
    before = snapshot(root)
    to = sorter(tmp_path, ui, how)
    for path in paths:
        put(to, path)
    assert to.finish()["failed"] == []
    arrived = sorted(p for p in (tmp_path / "sorted" / "cats").iterdir())
    assert sorted(p.read_bytes() for p in arrived) == [b"one", b"two"]
    names = {os.fsencode(p.name) for p in arrived}
    assert name in names
    assert all(len(n) <= 255 for n in names)
    if b"." in name[-5:-1]:
        assert all(n.endswith(name[name.rindex(b".") :]) for n in names)
    assert {p.is_symlink() for p in arrived} == {how == "link"}
    assert snapshot(root) == (before if how != "move" else {"one": None, "two": None})
    assert undo_all(tmp_path / "sorted") == []
    assert snapshot(root) == before
    assert [p.suffix for p in (tmp_path / "sorted").iterdir()] == [".csv"]


@pytest.mark.parametrize("how", HOWS)
def test_nothing_is_overwritten_and_the_same_bytes_come_once(tmp_path, photos, ui, how):
    folder = tmp_path / "sorted" / "cats"
    write(folder / "a.png", b"mine")
    write(folder / "b.png", b"same")
    (folder / "c.png").symlink_to("nowhere")
    (folder / "d.png").mkdir()
    for name in "abcd":
        write(photos / f"{name}.png", b"same" if name == "b" else name.encode())
    before = snapshot(folder)
    for _ in range(2):
        to = sorter(tmp_path, ui, how)
        for path in sorted(photos.iterdir()):
            put(to, path)
    after = snapshot(folder)
    assert after.items() >= before.items()
    new = {f"{name}-{sha(name.encode())[:8]}.png": name.encode() for name in "acd"}
    assert {name: after[name] for name in after.keys() - before.keys()} == new
    assert sorted(p.name for p in photos.iterdir()) == (
        ["b.png"] if how == "move" else ["a.png", "b.png", "c.png", "d.png"]
    )
    if how == "move":
        assert "has the same bytes" in to.finish()["failed"][0]["reason"]


def test_names_with_all_digits(tmp_path, photos, ui):
    digest = sha(b"new")
    for name in list(target.names("a.png", digest))[:-1]:
        write(tmp_path / "sorted" / "cats" / name, b"other")
    to = sorter(tmp_path, ui)
    put(to, write(photos / "a.png", b"new"))
    assert (tmp_path / "sorted" / "cats" / f"a-{digest}.png").read_bytes() == b"new"
    write(tmp_path / "sorted" / "cats" / f"a-{digest}.png", b"other")
    put(to, photos / "a.png")
    assert "other files have all its names" in to.finish()["failed"][0]["reason"]


@pytest.mark.parametrize("how", HOWS)
def test_a_file_that_changed_since_it_was_predicted_stays(tmp_path, photos, ui, how):
    to = sorter(tmp_path, ui, how)
    to.put(write(photos / "a.png", b"now"), sha(b"before"), "cats", unsure=False)
    assert to.finish()["failed"][0]["reason"] == "changed meanwhile"
    assert snapshot(tmp_path / "sorted" / "cats") == {}
    assert snapshot(photos) == {"a.png": b"now"}


def test_moving_to_another_disk_keeps_time_and_permissions(tmp_path, photos, ui, monkeypatch):
    monkeypatch.setattr(os, "link", across_disks)
    path = write(photos / "a.png", b"a")
    path.chmod(0o640)
    os.utime(path, (1e9, 1e9))
    to = sorter(tmp_path, ui, "move")
    put(to, path)
    arrived = tmp_path / "sorted" / "cats" / "a.png"
    assert not path.exists()
    assert (arrived.read_bytes(), arrived.stat().st_mtime, arrived.stat().st_mode & 0o777) == (b"a", 1e9, 0o640)
    assert undo_all(tmp_path / "sorted") == []
    assert path.read_bytes() == b"a"


def test_moving_to_another_disk_on_real_disks(tmp_path, photos, ui):
    other = "/dev/shm"
    if not os.path.isdir(other) or os.stat(other).st_dev == os.stat(tmp_path).st_dev:  # noqa: PTH112, PTH116
        pytest.skip("no second file system here")
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory(dir=other) as folder:
        to = Sorter(Target(Path(folder).resolve() / "sorted", "unsure", {}), "move", ui)
        put(to, write(photos / "a.png", b"a"))
        assert snapshot(photos) == {}
        assert (Path(folder) / "sorted" / "cats" / "a.png").read_bytes() == b"a"
        assert undo_all(Path(folder) / "sorted") == []
    assert snapshot(photos) == {"a.png": b"a"}


def no_links(*arguments, **options):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_disk_without_hard_links(tmp_path, photos, ui, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    to = sorter(tmp_path, ui, "move")
    put(to, write(photos / "a.png", b"a"))
    assert snapshot(tmp_path / "sorted" / "cats") == {"a.png": b"a"}
    assert snapshot(photos) == {}


def test_a_copy_that_is_damaged_on_its_way_does_not_cost_the_source(tmp_path, photos, ui, monkeypatch):
    monkeypatch.setattr(os, "link", across_disks)
    monkeypatch.setattr(transfer.shutil, "copyfileobj", lambda source, file: file.write(source.read()[:-1]))
    to = sorter(tmp_path, ui, "move")
    put(to, write(photos / "a.png", b"abc"))
    assert "changed" in to.finish()["failed"][0]["reason"]
    assert snapshot(photos) == {"a.png": b"abc"}
    assert snapshot(tmp_path / "sorted" / "cats") == {}


def test_a_full_disk_ends_it_with_everything_in_its_place(tmp_path, photos, ui, monkeypatch):
    monkeypatch.setattr(os, "link", across_disks)

    def full(source, file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(transfer.shutil, "copyfileobj", full)
    with pytest.raises(VggftError, match=r"No space left.*run the same command again"):
        put(sorter(tmp_path, ui, "move"), write(photos / "a.png", b"abc"))
    assert snapshot(photos) == {"a.png": b"abc"}
    assert snapshot(tmp_path / "sorted" / "cats") == {}


def test_links_and_guarded_files_are_not_moved(tmp_path, photos, ui):
    real = write(tmp_path / "elsewhere" / "a.png", b"a")
    (photos / "a.png").symlink_to(real)
    to = sorter(tmp_path, ui, "move", guarded={"the data folder": photos.resolve() / "data"})
    put(to, photos / "a.png")
    put(to, write(photos / "data" / "b.png", b"b"))
    (tmp_path / "way").symlink_to(photos / "data")
    put(to, tmp_path / "way" / "b.png")
    reasons = [left["reason"] for left in to.finish()["failed"]]
    assert reasons[0] == "a link, and only files are moved"
    assert all(reason.startswith("in the data folder") for reason in reasons[1:])
    assert len(reasons) == 3
    assert not (tmp_path / "sorted").exists()


def test_the_folder_of_unsure_files_is_no_class(tmp_path):
    assert target._free("unsure", ["cats"]) == "unsure"
    assert target._free("unsure", ["Unsure", "unsure-2"]) == "unsure-3"


def test_undo_leaves_what_is_no_longer_as_it_was(tmp_path, photos, ui):
    """A copy whose source is gone or changed, a changed copy, another link, a file moved on, a source that is taken."""
    cases = {}
    for how in HOWS:
        to = sorter(tmp_path, ui, how)
        for name in (f"{how}-{case}.png" for case in ("changed", "source")):
            put(to, write(photos / name, name.encode()))
        cases[how] = tmp_path / "sorted" / "cats"
    folder = cases["copy"]
    for name in ("copy-changed.png", "move-changed.png"):
        (folder / name).write_bytes(b"edited")
    (folder / "link-changed.png").unlink()
    (folder / "link-changed.png").symlink_to("elsewhere")
    (photos / "copy-source.png").unlink()
    (photos / "link-source.png").unlink()
    (photos / "move-source.png").write_bytes(b"another")
    left = undo_all(tmp_path / "sorted")
    # From the end: moved, linked and copied files.
    assert left == [
        f"{photos / 'move-source.png'} has other bytes now",
        "no longer the file that vggft put there",
        "no longer the link that vggft made",
        f"{photos / 'copy-source.png'} is gone, so this may be the only copy",
        "no longer the file that vggft put there",
    ]
    assert snapshot(folder) | {"link-changed.png": None} == {
        "copy-changed.png": b"edited",
        "move-changed.png": b"edited",
        "link-changed.png": None,
        "copy-source.png": b"copy-source.png",
        "move-source.png": b"move-source.png",
    }
    assert (photos / "move-source.png").read_bytes() == b"another"


def test_undo_keeps_a_copy_whose_source_leads_to_it(tmp_path, photos, ui):
    """What looks like a second file is the same one: through a link in place of the source, or above it."""
    to = sorter(tmp_path, ui)
    put(to, write(photos / "a.png", b"a"))
    put(to, write(photos / "inner" / "b.png", b"b"))
    copies = tmp_path / "sorted" / "cats"
    (photos / "a.png").unlink()
    (photos / "a.png").symlink_to(copies / "a.png")
    (photos / "inner" / "b.png").unlink()
    (photos / "inner").rmdir()
    (photos / "inner").symlink_to(copies)
    assert len(undo_all(tmp_path / "sorted")) == 2
    assert snapshot(copies) == {"a.png": b"a", "b.png": b"b"}


def test_a_file_under_two_paths_is_one(tmp_path):
    """Whatever the number of its links."""
    path = write(tmp_path / "a" / "x", b"x")
    (tmp_path / "way").symlink_to(tmp_path / "a")
    assert not transfer.are_two(path, tmp_path / "way" / "x")
    os.link(path, tmp_path / "a" / "y")
    assert not transfer.are_two(path, tmp_path / "way" / "x")
    assert transfer.are_two(path, tmp_path / "way" / "y")


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path, photos, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path, target = write(photos / "a", b"new"), write(tmp_path / "a", b"mine")
    for put_there in (transfer.copy, transfer.move):
        with pytest.raises(FileExistsError):
            put_there(path, target, sha(b"new"))
    assert (path.read_bytes(), target.read_bytes()) == (b"new", b"mine")


def test_a_list_without_the_end_of_its_last_row(tmp_path):
    """Wherever a kill cut it, the rows before are read."""
    lists = Journal(tmp_path)
    names = ["a.png", "b\r\nc.png", "d.png"]
    for name in names:
        lists.write(Entry(f"/photos/{name}", tmp_path / name, "move", "ab" * 32))
    data = lists.path.read_bytes()
    ends = [data.index(b'"/photos/b'), data.index(b"/photos/d"), len(data)]
    for length in range(len(data) + 1):
        lists.path.write_bytes(data[:length])
        read = [entry.destination.name for entry in journal.read(lists.path)]
        assert read == names[: sum(length >= end for end in ends)]


@pytest.mark.parametrize(
    "row",
    [
        "/a,../b,copy," + "ab" * 32,
        "/a,/b,copy," + "ab" * 32,
        "a,b,copy," + "ab" * 32,
        "/a,b,delete," + "ab" * 32,
        "/a,b,copy,ab",
        "/a,b,copy",
    ],
)
def test_what_is_no_list_is_refused(tmp_path, row):
    path = tmp_path / "vggft-into-1.csv"
    good = "/a,b,copy," + "ab" * 32
    path.write_text("source,destination,action,sha256\r\n" + "\r\n".join([row, *[good] * 600, ""]))
    with pytest.raises(VggftError, match="no list of vggft predict --into"):
        journal.read(path)
    path.write_text("something else\r\n")
    with pytest.raises(VggftError, match="no list of vggft predict --into"):
        journal.read(path)


def test_the_rows_of_a_list(tmp_path, photos, ui):
    to = sorter(tmp_path, ui)
    put(to, write(photos / "a.png", b"a"), unsure=True)
    path = to.finish()["into"]["list"]
    with open(path, newline="") as file:  # noqa: PTH123
        rows = list(csv.reader(file))
    assert rows == [
        ["source", "destination", "action", "sha256"],
        ["", "unsure", "folder", ""],
        ["", "unsure/cats", "folder", ""],
        [str(photos.resolve() / "a.png"), "unsure/cats/a.png", "copy", sha(b"a")],
    ]


def test_a_target_that_was_renamed_is_undone(tmp_path, photos, ui):
    to = sorter(tmp_path, ui, "move")
    put(to, write(photos / "a.png", b"a"))
    (tmp_path / "sorted").rename(tmp_path / "renamed")
    assert undo_all(tmp_path / "renamed") == []
    assert snapshot(photos) == {"a.png": b"a"}


def entries(*folders):
    """Return path → bytes, or what a link leads to."""
    return {
        path: os.readlink(path) if path.is_symlink() else path.read_bytes()  # noqa: PTH115
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix == ".png" and (path.is_symlink() or path.is_file())
    }


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_nothing_of_a_person_is_lost(tmp_path, photos, ui, monkeypatch, seed):
    """Random sorting, undoing and meddling: no bytes disappear, and no file changes in place."""
    rng = random.Random(seed)
    if seed % 2:
        monkeypatch.setattr(os, "link", across_disks)
    folder = tmp_path / "sorted"
    folder.mkdir()
    for step in range(60):
        # What the person does: a new picture, or one in the target edited, copied to somewhere, or thrown away.
        write(photos / rng.choice("ab") / f"{rng.choice('xyz')}.png", f"{step if rng.random() < 0.7 else 0}".encode())
        there = sorted(entries(folder))
        if there and rng.random() < 0.4:
            path = rng.choice(there)
            if rng.random() < 0.3 and not path.is_symlink():
                path.write_bytes(f"edited {step}".encode())
            elif rng.random() < 0.5 and path.exists():
                write(photos / "a" / path.name, path.read_bytes())
            else:
                path.unlink()
        before = entries(photos, folder)
        if rng.random() < 0.7:
            how = rng.choice(HOWS)
            to = sorter(tmp_path, ui, how)
            for path in rng.sample(sorted(entries(photos)), 2) if len(entries(photos)) > 1 else ():
                put(to, path, rng.choice(["cats", "dogs"]), rng.random() < 0.3)
        else:
            lists = sorted(folder.glob("*.csv"))
            list(undoing.undo(journal.read(rng.choice(lists)) if lists else []))
        after = entries(photos, folder)
        files = {data for data in before.values() if isinstance(data, bytes)}
        assert files <= {data for data in after.values() if isinstance(data, bytes)}
        assert all(after[path] == before[path] for path in before.keys() & after.keys())
        vanished = [path for path in before.keys() - after.keys() if photos in path.parents]
        assert not vanished or how == "move" or not isinstance(before[vanished[0]], bytes)
    assert not list(tmp_path.rglob("*.tmp"))
