"""The benchmarks: the clock, the measurements, contenders that are left out, and the division of pictures into splits."""

import json
import shutil
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import make_classes
from PIL import Image

from benchmarks.contenders.entry import TRAIN, VALIDATE, Task, listed
from benchmarks.contest import Contest, Score, fastest_first, relative, spread
from benchmarks.photographs import divide
from benchmarks.questions.race import best_until, reached

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
    """Return the folders of training and validation, and of unseen images: 12 pictures in each of two classes."""
    base = tmp_path_factory.mktemp("divided")
    return divide(make_classes(base / "source", a=12, b=12), base / "target")


def contest_with(divided, place, body):
    """Return a contest in which the contender "tried" does what `body` says with `entry`."""
    interpreter = place / "interpreter"  # it is called as Python is, and plays the contender
    lines = [f"#!{sys.executable}", "import sys, time", f"sys.path.insert(0, {str(ROOT)!r})", "import numpy as np"]
    lines += [
        "from pathlib import Path",
        "from benchmarks.contenders.entry import Entry, Task, listed",
        "def do(entry):",
    ]
    last = "Entry(Task.read(Path(sys.argv[3]))).run({'try': do})"
    interpreter.write_text("\n".join([*lines, textwrap.indent(textwrap.dedent(body), "    "), last]) + "\n")
    interpreter.chmod(0o755)
    data, unseen = divided
    return Contest(data, unseen, place, place / "contenders", 2, interpreters={"tried": str(interpreter)})


@pytest.mark.slow
def test_judging_takes_no_time_and_scores_are_those_of_the_probabilities(divided, tmp_path):
    contest = contest_with(
        divided,
        tmp_path,
        """
        held = bytearray(300_000_000)
        held[::4096] = b"x" * len(held[::4096])
        time.sleep(1)
        entry.epoch(0.25)
        def predict(folder):
            held = np.ones(100_000_000)
            time.sleep(3)
            files, targets = listed(folder)
            right = 0.8 if folder.name == "validate" else 0.6
            return np.where(np.arange(2) == targets[:, None], right, 1 - right)
        entry.judge("epoch 1", predict)
        (entry.task.work / "kept").write_bytes(bytes(1000))
        """,
    )
    run = contest.run("tried", contest.task("try"))
    assert 1 < run.seconds < 4  # 6 more were spent in `predict`
    assert run.epochs == [0.25]
    (score,) = run.scores
    assert score.name == "epoch 1"
    assert 1 < score.clock <= run.seconds
    assert score.validation == pytest.approx({"log_loss": -np.log(0.8), "accuracy": 1})
    assert score.unseen == pytest.approx({"log_loss": -np.log(0.6), "accuracy": 1})
    assert run.disk == 1000
    if Path("/proc/self/smaps_rollup").exists():
        assert 300e6 < run.memory < 600e6  # without what is held while judging


def test_a_model_that_has_diverged_has_no_scores(divided, tmp_path, capsys):
    body = "for value in (np.nan, 0.5): entry.judge(str(value), lambda f: np.full((len(listed(f)[0]), 2), value))"
    run = contest_with(divided, tmp_path, body).run("tried", Task("try", *divided, tmp_path, tmp_path))
    assert [score.name for score in run.scores] == ["0.5"]
    assert "nan has diverged" in capsys.readouterr().err


def test_a_contender_whose_library_is_not_installed_is_left_out(divided, tmp_path):
    contest = contest_with(divided, tmp_path, "import no_such_library")
    assert contest.in_turn(["tried"], contest.task("try")) == {}
    assert contest.missing == {"tried": "No module named 'no_such_library'"}


def test_a_contender_that_fails_is_left_out_with_what_it_printed(divided, tmp_path):
    contest = contest_with(divided, tmp_path, "if entry.task.seed: sys.exit('no memory')")
    contest.journal = tmp_path / "runs.jsonl"
    assert contest.in_turn(["tried"], contest.task("try")) == {}  # the second round fails
    assert contest.missing == {"tried": "failed: status 1; no memory"}
    assert contest.versions["tried"]["numpy"] == np.__version__
    (first,) = map(json.loads, contest.journal.read_text().splitlines())
    assert (first["contender"], first["task"]["seed"], first["task"]["do"]) == ("tried", 0, "try")
    assert first["run"]["seconds"] > 0


def test_what_a_contender_starts_ends_with_it(divided, tmp_path):
    body = "import subprocess; child = subprocess.Popen(['sleep', '600']); entry.say('child', pid=child.pid)"
    contest = contest_with(divided, tmp_path, body)
    run = contest.run("tried", contest.task("try"))
    time.sleep(0.5)
    status = Path(f"/proc/{run.events[0]['pid']}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_rounds_alternate_and_folders_are_cleared(divided, tmp_path):
    contest = contest_with(
        divided,
        tmp_path,
        "entry.say('found', files=len(list(entry.task.work.iterdir()))); (entry.task.work / 'x').touch()",
    )
    contest.interpreters["other"] = contest.interpreters["tried"]
    turns = []

    def before(name):
        turns.append(name)
        contest.clear(name)

    runs = contest.in_turn(["tried", "other"], contest.task("try"), before)
    assert turns == ["tried", "other", "other", "tried"]
    assert [event["files"] for each in runs.values() for run in each for event in run.events[:1]] == [0] * 4


def test_pictures_are_divided_once_and_each_is_in_one_part(divided, tmp_path):
    data, unseen = divided
    folders = (data / TRAIN, data / VALIDATE, unseen)
    contents = [[path.read_bytes() for path in listed(folder)[0]] for folder in folders]
    assert [len(part) for part in contents] == [14, 4, 6]
    assert len({one for part in contents for one in part}) == 24
    assert [np.bincount(listed(folder)[1]).tolist() for folder in folders] == [[7, 7], [2, 2], [3, 3]]
    again, _ = divide(data.parents[1] / "source", tmp_path / "again")
    assert [path.read_bytes() for path in listed(again / TRAIN)[0]] == contents[0]
    fewer, as_many = divide(data.parents[1] / "source", tmp_path / "fewer", images=9)
    assert [len(listed(folder)[0]) for folder in (fewer / TRAIN, fewer / VALIDATE, as_many)] == [8, 2, 6]


def test_splits_that_exist_are_kept(tmp_path):
    for name, number in (("train", 5), ("validation", 3), ("test", 4)):
        make_classes(tmp_path / "source" / name, a=number, b=number)
    data, unseen = divide(tmp_path / "source", tmp_path / "target")
    assert [len(listed(folder)[0]) for folder in (data / TRAIN, data / VALIDATE, unseen)] == [10, 6, 8]
    shutil.rmtree(tmp_path / "source" / "test")  # without unseen images, all are divided again
    data, unseen = divide(tmp_path / "source", tmp_path / "again")
    assert [len(listed(folder)[0]) for folder in (data / TRAIN, data / VALIDATE, unseen)] == [10, 2, 4]


def test_parts_without_a_class_are_refused(tmp_path):
    for name in ("train", "validation", "test"):
        make_classes(tmp_path / "source" / name, a=2, b=2)
    shutil.rmtree(tmp_path / "source" / "test" / "a")
    with pytest.raises(SystemExit, match=r"same classes in every part.*unseen: b"):
        divide(tmp_path / "source", tmp_path / "target")
    assert not (tmp_path / "target").exists()
    make_classes(tmp_path / "train", train=4, b=4)  # a class with the name of a split
    data, _ = divide(tmp_path / "train", tmp_path / "target")
    assert sorted(path.name for path in (data / TRAIN).iterdir()) == ["b", "train"]


def test_pictures_of_one_size_for_programs_that_resize_differently(divided, tmp_path):
    data, unseen = divide(divided[0].parents[1] / "source", tmp_path, images=8, side=32)
    files = [file for folder in (data / TRAIN, data / VALIDATE, unseen) for file in listed(folder)[0]]
    assert {(file.suffix, Image.open(file).size) for file in files} == {(".png", (32, 32))}
    assert len(listed(unseen)[0]) == 2


def test_what_was_reached_in_a_time_is_selected_by_validation():
    scores = [
        Score(str(clock), clock, {"log_loss": validation}, {"log_loss": unseen})
        for clock, validation, unseen in ((10, 0.5, 0.9), (20, 0.3, 0.8), (30, 0.4, 0.1))
    ]
    assert best_until(scores, 5) is None
    assert best_until(scores, 15).name == "10"
    assert best_until(scores, 60).name == "20"
    assert reached(scores, lambda score: score.validation["log_loss"] <= 0.4) == 20
    assert reached(scores, lambda score: score.unseen["log_loss"] <= 0.2) is None  # the last is not selected


def test_values_are_shown_with_their_spread_and_pair_by_pair():
    assert spread([3.0, 1.0, 2.0]) == "2.0 (1.0–3.0)"
    assert spread([3.0]) == "3.0"
    seconds = {"vggft": [1.0, 3.0, 4.0], "slow": [2.0, 9.0, 4.0], "fast": [1.0, 1.0, 9.0]}
    assert relative(seconds, "slow") == "2.00 (1.00–3.00)"
    assert relative({"slow": [2.0]}, "slow") == "–"
    assert fastest_first(seconds) == ["fast", "vggft", "slow"]
