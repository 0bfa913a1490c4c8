"""Every file of a finished workspace, damaged in every way, before every command.

No traceback, no wrong exit code, and no number that differs from that of the undamaged workspace without a word about it. The
test takes a sample of the combinations: all 2,400 of them passed, too.
"""

import itertools
import random
import re
import shutil

import numpy as np
import pytest
from conftest import rewrite, strict_json, vggft
from tiny import TINY

from vggft.steps import compare, finetune, head, tuning
from vggft.steps.options import CompareOptions, FinetuneOptions, HeadOptions
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace

pytestmark = pytest.mark.usefixtures("unrendered", "untraced")

DAMAGE = ("deleted", "emptied", "halved", "flipped", "replaced by a folder")
COMMANDS = {
    "featurize": ("featurize", "{data}"),
    "head": ("head", "--head", "max-linear", "--head", "logistic-avg", "--epochs", "8"),
    "resume": ("finetune", "--resume"),
    "compare": ("compare", "--quick"),
    "predict": ("predict", "{data}/birds"),
    "evaluate": ("evaluate", "{data}"),
    "runs": ("runs",),
    "info": ("cache", "info"),
    "verify": ("cache", "verify"),
    "prune": ("cache", "prune", "--yes"),
}
# Numbers that differ from one run of a command to the next: times, and what is named after the workspace.
VOLATILE = re.compile(
    "second|latency|cost|per_second|path|bytes|cache|manifest|leaderboard|report|network|age|file|folder"
)
WORDS = re.compile(
    "damage|missing|gone|left out|not as vggft wrote|no data set yet|not recorded|again|for a recommendation"
)


@pytest.fixture(scope="module")
def finished(trained, tmp_path_factory):
    """A workspace with heads of each kind, out-of-fold predictions, a finished and an unfinished run, and a comparison."""
    base = tmp_path_factory.mktemp("every-file")
    shutil.copytree(trained[0].root, base / "work")
    shutil.copytree(trained[1], base / "data")
    settings = strict_json((base / "work" / "workspace.json").read_text())
    rewrite(base / "work" / "workspace.json", {**settings, "data": str(base / "data")})
    work, ui = Workspace(base / "work", TINY), Ui(quiet=True)
    for place in [*work.heads.iterdir()]:
        if place.name not in ("max-linear", "logistic-avg", "leaderboard.csv"):
            shutil.rmtree(place)
    head.run(work, HeadOptions.of(epochs=8, head=("max-linear", "logistic-avg")), ui)  # by the folds that are there
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tuning, "_predict_validation", stop)
        finetune.run(work, FinetuneOptions.of(epochs=1, name="unfinished", start="max-linear"), ui)
    compare.run(work, CompareOptions(quick=True), ui)
    return base


def stop(*arguments):
    raise KeyboardInterrupt


def files(base):
    """Return the files that differ in kind, relative to the workspace: a shard of the features in use, and of other ones."""
    work = base / "work"
    key, chosen = Workspace(work, TINY).settings.fingerprint.key, {}
    for path in sorted(path for path in work.rglob("*") if path.is_file()):
        relative = path.relative_to(work)
        kind = [
            "another" if part != key and relative.parts[0] == "cache" and i == 1 else part
            for i, part in enumerate(relative.parts)
        ]
        if "shards" in kind:
            kind[-1] = "shard"
        if "tensorboard" not in kind and not path.name.startswith("lock"):
            chosen.setdefault(tuple(kind), str(relative))
    return sorted(chosen.values())


def damage(path, kind):
    data = path.read_bytes()
    path.unlink()
    if kind == "replaced by a folder":
        path.mkdir()
    elif kind != "deleted":
        flipped = bytearray(data)
        if flipped:
            flipped[len(data) * 2 // 3] ^= 0x01  # another digit, where there are digits
        path.write_bytes({"emptied": b"", "halved": data[: len(data) // 2], "flipped": bytes(flipped)}[kind])


def outcome(base, command):
    """Run a command with --json; return exit code, numbers and words."""
    arguments = [word.format(data=base / "data") for word in COMMANDS[command]]
    done = vggft(*arguments, "-w", base / "work", "--json")
    return done.returncode, dict(numbers(strict_json(done.stdout))), done.stderr


def numbers(value, place=""):
    if isinstance(value, dict):
        for key, item in value.items():
            if not VOLATILE.search(key):
                yield from numbers(item, f"{place}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from numbers(item, f"{place}[{i}]")
    else:
        yield place, value


def same(first, second):
    """Return whether two results have the same numbers; those of other computations up to rounding."""
    if first.keys() != second.keys():
        return False
    for key, value in first.items():
        other = second[key]
        if isinstance(value, float) and isinstance(other, (int, float)):
            if not np.isclose(value, other, rtol=1e-3, atol=1e-5):
                return False
        elif value != other:
            return False
    return True


def run(finished, tmp_path, combinations):
    """Return the combinations of file, damage and command that end as they must not, with what was seen."""
    expected, wrong = {}, []
    for command in {command for _, _, command in combinations}:
        shutil.rmtree(tmp_path / "base", ignore_errors=True)
        shutil.copytree(finished, tmp_path / "base")
        expected[command] = outcome(tmp_path / "base", command)
        assert expected[command][0] == 0, expected[command]
    for name, kind, command in combinations:
        shutil.rmtree(tmp_path / "base")
        shutil.copytree(finished, tmp_path / "base")
        damage(tmp_path / "base" / "work" / name, kind)
        code, found, said = outcome(tmp_path / "base", command)
        new = set(said.splitlines()) - set(expected[command][2].splitlines())
        told = any(WORDS.search(line) for line in new)
        told = told or (
            command in ("info", "verify", "prune") and code in (0, 1)
        )  # which report damage as their result
        problem = ""
        if "Traceback" in said or "unexpected" in said:
            problem = "a bug"
        elif code not in (0, 1, 3) or (code == 1 and not ("error:" in said or command == "verify")):
            problem = f"exit code {code}"
        elif code == 0 and not told and not same(found, expected[command][1]):
            problem = "other numbers without a word"
        if problem:
            wrong.append((name, kind, command, problem, said[-600:]))
    return wrong


@pytest.mark.slow
def test_files_and_kinds_of_damage_before_every_command(finished, tmp_path):
    combinations = list(itertools.product(files(finished), DAMAGE, COMMANDS))
    assert run(finished, tmp_path, random.Random(1).sample(combinations, 120)) == []
