"""`vggft sort` on the command line: what it refuses before anything changes, and applying without the page."""

import shutil

import pytest
from conftest import paint, refused, snapshot, strict_json, vggft
from small_labelling import Window, photos, session
from tiny import TINY

from vggft.labelling import seat, server
from vggft.labelling.decisions import FILE
from vggft.steps import sort
from vggft.steps.options import SortOptions
from vggft.workspace.workspace import Workspace


@pytest.fixture
def root(tmp_path):
    return photos(tmp_path / "photos", 4)


@pytest.fixture
def sorted_root(root):
    window = Window(session(root, "cats", "dogs"))
    window.decide("cats", "000.png")
    window.decide("dogs", "001.png")
    window.decide("", "002.png")
    return root


def test_given_classes_replace_those_of_last_time_without_pictures(sorted_root, tmp_path):
    with seat.taken(sorted_root) as held:
        held.take(4321, "t" * 32, ("cats", "dogs", "birds"))
    workspace = Workspace(tmp_path / "work", TINY)
    for given, offered in (((), ["cats", "dogs", "birds"]), (("fish",), ["fish", "cats", "dogs"])):
        with sort._folder(workspace, SortOptions.of(folder=sorted_root, classes=given)) as task:
            assert list(task.classes) == offered


def test_a_workspace_among_the_pictures_is_refused(tmp_path):
    paint(tmp_path / "a.png", (1, 2, 3))
    assert "overlap: one lies inside the other" in refused("sort", ".", "--no-open", cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_what_is_refused_changes_nothing(root, tmp_path):
    before = snapshot(tmp_path)
    assert "Expected either FOLDER" in refused("sort", cwd=tmp_path)
    assert "Expected either FOLDER" in refused("sort", root, "--review", cwd=tmp_path)
    assert "--review with --into" in refused("sort", "--review", "--into", tmp_path / "out", cwd=tmp_path)
    assert "--how move needs --apply" in refused("sort", root, "--how", "move", cwd=tmp_path)
    assert "no such folder" in refused("sort", tmp_path / "none", "--no-open")
    for port in ("80", "70000"):
        assert f"--port {port}: expected a whole number, 1024 to 65535" in refused("sort", root, "--port", port)
    assert snapshot(tmp_path) == before


def test_classes_that_cannot_be_folders_are_refused(root):
    assert "'a/b' contains a slash" in refused("sort", root, "--class", "a/b", "--no-open")
    assert "only in spelling" in refused("sort", root, "--class", "cats", "--class", "Cats", "--no-open")
    assert not (root / FILE).exists()


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a note")
    assert "no pictures there" in refused("sort", tmp_path / "notes", "--no-open")


def test_nothing_is_applied_before_anything_is_sorted(root):
    assert "no picture is sorted yet. Sort first: vggft sort" in refused("sort", root, "--apply")


def test_a_second_sorter_is_refused_and_named(sorted_root):
    with seat.taken(sorted_root):
        for more in (["--no-open"], ["--apply"]):
            assert "is sorting here" in refused("sort", sorted_root, *more)


def test_a_damaged_list_is_refused_and_stays(sorted_root):
    (sorted_root / FILE).write_text("file,label\n000.png,cats\n")
    assert "no list of decisions" in refused("sort", sorted_root, "--apply")
    assert (sorted_root / FILE).read_text() == "file,label\n000.png,cats\n"


def test_a_port_that_is_taken_is_refused(root):
    with server.listening(0, 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert f"--port {port}: cannot be used" in refused("sort", root, "--port", port, "--no-open")


def test_a_missing_package_is_named_with_the_command(root, monkeypatch):
    find = server.extras.importlib.util.find_spec
    monkeypatch.setattr(
        server.extras.importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name)
    )
    message = refused("sort", root, "--no-open")
    assert "not installed: uvicorn. Run: pip install 'vggft[sort]'" in message


@pytest.mark.parametrize("how", ["copy", "link", "move"])
def test_apply_and_undo(sorted_root, tmp_path, how):
    before = snapshot(sorted_root)
    done = vggft("sort", sorted_root, "--apply", "--how", how, "--into", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    into = strict_json(done.stdout)["into"]
    assert (into["put"], into["how"]) == ({"cats": 1, "dogs": 1}, how)
    found = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png"))
    assert found == ["cats/000.png", "dogs/001.png"]
    assert (sorted_root / "000.png").exists() == (how != "move")
    undone = vggft("undo", into["list"])
    assert (undone.returncode, undone.stdout) == (0, "undone: 2 files\n")
    after = snapshot(sorted_root)
    assert {name: after[name] for name in before} == before


def test_a_file_that_is_gone_is_left_and_the_exit_code_says_so(sorted_root):
    (sorted_root / "000.png").unlink()
    done = vggft("sort", sorted_root, "--apply")
    assert done.returncode == 3
    assert "left where it is" in done.stderr
    assert "copied 1 file into" in done.stderr


def test_a_copy_of_the_folder_has_its_decisions(sorted_root, tmp_path):
    shutil.copytree(sorted_root, tmp_path / "copy")
    done = vggft("sort", tmp_path / "copy", "--apply", "--json")
    assert strict_json(done.stdout)["into"]["folder"] == str(tmp_path.resolve() / "copy-sorted")
