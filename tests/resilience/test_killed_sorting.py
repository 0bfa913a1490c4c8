"""kill -9 at each step of putting pictures into class folders, and of undoing it: none is lost, and a repetition finishes it."""

import os
import signal

import pytest
from conftest import drawings, snapshot, vggft
from processes import Fork, start, wait_until
from small_sorting import across_disks, killed_at, sort, undo, write


def pictures(folder):
    """Return path → bytes of the pictures below a folder; a list and folders are left out."""
    return {path: data for path, data in snapshot(folder).items() if path.endswith(".png")}


def killed(*arguments):
    process = Fork(killed_at, *arguments)
    out, err = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), (out, err)
    return process.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("function", [sort, undo])
@pytest.mark.parametrize(("how", "across"), [("move", False), ("move", True), ("copy", False), ("link", False)])
def test_killed_at_each_step(tmp_path, monkeypatch, function, how, across):
    """Two pictures of one name; `across`: to another disk."""
    if across:
        monkeypatch.setattr(os, "link", across_disks)
    names = [f"{part}/x\n.png" for part in "ab"]
    for number in range(100):
        root = tmp_path.resolve() / str(number)
        for name in names:
            write(root / "photos" / name, name.encode())
        before = pictures(root / "photos")
        if function is undo:
            assert sort(root, how) == []
        died = killed(number, function, root, how, across)
        assert {data for data in pictures(root).values() if data} == set(before.values())
        assert function(root, how) == []
        assert not list(root.rglob("*.tmp"))
        if function is sort:
            assert sorted(pictures(root / "sorted").values()) == sorted(before.values())
            assert pictures(root / "photos") == ({} if how == "move" else before)
            assert undo(root, how) == []
        assert pictures(root / "sorted") == {}
        assert pictures(root / "photos") == before
        if not died:
            break
    assert 3 <= number < 99


@pytest.mark.slow
def test_the_command_interrupted_and_killed(again, tmp_path):
    photos, folder = drawings(tmp_path / "photos", 12, "bugs", "flowers"), tmp_path / "sorted"
    before = pictures(photos)
    command = ("predict", photos, "--into", folder, "--how", "move", "-w", again.root)
    for number in (signal.SIGINT, signal.SIGKILL):
        left = len(pictures(photos))
        process = start(*command, pause=0.3)
        wait_until(lambda left=left: len(list(photos.rglob("*.png"))) < left, process)
        process.send_signal(number)
        _, err = process.communicate()
        assert sorted(pictures(tmp_path / "photos").values()) != sorted(before.values())
        # A file is in both folders for a moment.
        assert {*pictures(photos).values(), *pictures(folder).values()} == set(before.values())
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert f"or undo it: vggft undo {next(folder.glob('*.csv'))}" in err
    assert 0 < len(pictures(photos)) < 24
    done = vggft(*command)
    assert done.returncode == 0, done.stderr
    assert pictures(photos) == {}
    assert sorted(pictures(folder).values()) == sorted(before.values())
    for path in sorted(folder.glob("*.csv"), reverse=True):
        assert vggft("undo", path).returncode == 0
    assert pictures(photos) == before
    assert pictures(folder) == {}
