"""`vggft runs`: what is listed, and that only what vggft provably wrote is removed; what an interruption keeps."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import refused, snapshot, strict_json, vggft
from tiny import TINY

from featurize.errors import VggftError
from finetune import removal, store
from finetune.train import State
from vggft.steps import finetune, new_run, resumption, runs
from vggft.steps.options import FinetuneOptions, RunsOptions
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace

pytestmark = pytest.mark.usefixtures("unrendered")


@pytest.fixture
def work(trained, tmp_path):
    """The trained workspace without its features: a finished run, and four that are not."""
    shutil.copytree(trained[0].root, tmp_path / "work", ignore=shutil.ignore_patterns("cache"))
    workspace = Workspace(tmp_path / "work", TINY)
    (run,) = store.load_all(workspace.finetune)
    shutil.copy(workspace.finetune / run.name / "history.csv", tmp_path)
    begin(workspace, "whole")
    begin(workspace, "stale", manifest="0" * 64)
    begin(workspace, "elsewhere", backend="another")
    settings = begin(workspace, "damaged").folder / "unfinished" / "settings.json"
    settings.write_bytes(settings.read_bytes()[:40])
    return workspace


def begin(workspace, name, **provenance):
    """Begin a run as if `vggft finetune` had been killed before the first checkpoint."""
    from vggft.prediction import models

    present = models.load(workspace)
    settings = present.networks[0].run.settings
    settings = replace(settings, name=name, provenance={**settings.provenance, **provenance})
    return store.begin(workspace.finetune, settings, present.heads[0].head)


def bytes_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_runs_are_listed_with_their_bytes(work):
    (finished,) = store.load_all(work.finetune)
    found = strict_json(vggft("runs", "-w", work.root, "--json").stdout)
    assert [(run["name"], run["state"], run["stale"], run["epochs"]) for run in found["runs"]] == [
        (finished.name, "finished", False, 2),
        ("damaged", "damaged", None, None),
        ("elsewhere", "unfinished", False, 0),
        ("stale", "unfinished", True, 0),
        ("whole", "unfinished", False, 0),
    ]
    assert {run["name"]: run["bytes"] for run in found["runs"]} == {
        folder.name: bytes_of(folder) for folder in work.finetune.iterdir()
    }
    assert found["bytes"] == bytes_of(work.finetune)
    assert found["runs"][0]["log_loss"] == finished.validation.log_loss
    shown = vggft("runs", "-w", work.root).stdout
    assert f"vggft runs --remove damaged -w {work.root}" in shown
    with pytest.raises(VggftError, match=f"^--yes: no run was named.* --yes -w {work.root}$"):
        runs.run(work, RunsOptions(yes=True), Ui(quiet=True))
    assert "unfinished, stale" in shown


def test_a_removed_run_leaves_what_a_person_put_there(work):
    (finished,) = store.load_all(work.finetune)
    folder = work.finetune / finished.name
    mine = [folder / "notes.txt", folder / "backup" / "network.keras", folder / "tensorboard" / "train" / "run.json"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (folder / "history.csv").unlink()
    (folder / "history.csv").symlink_to(mine[0])
    assert "pass --yes" in refused("runs", "--remove", finished.name, "-w", work.root)
    assert "no such run" in refused("runs", "--remove", "nobody", "--yes", "-w", work.root)
    done = vggft("runs", "--remove", finished.name, "--remove", "whole", "--yes", "-w", work.root, "--json")
    found = strict_json(done.stdout)
    assert found["removed"] == [finished.name, "whole"]
    assert found["bytes_freed"] > 0
    assert all(str(path) in done.stderr for path in mine)
    assert sorted(path for path in folder.rglob("*") if not path.is_dir()) == sorted([*mine, folder / "history.csv"])
    assert not (work.finetune / "whole").exists()
    assert [run["name"] for run in found["runs"]] == ["damaged", "elsewhere", "stale"]


@pytest.mark.parametrize(
    "name", ["network.keras", "network.svg", "network.png", "loss.png", "history.csv", "predictions.csv"]
)
def test_a_result_that_training_did_not_write_is_not_removed(work, name):
    (finished,) = store.load_all(work.finetune)
    result = work.finetune / finished.name / name
    result.write_bytes(b"mine")
    assert removal.remove(result.parent) == [result]
    assert list(result.parent.iterdir()) == [result]


def test_a_damaged_run_is_removed_if_something_proves_it(work):
    assert removal.remove(work.finetune / "damaged") == []
    unproven = begin(work, "unproven").folder
    for path in (unproven / "unfinished").iterdir():
        path.write_bytes(b"")
    (work.finetune / "notes").mkdir()
    (work.finetune / "notes" / "run.json").write_text(json.dumps({"settings": {"name": "other"}}))
    (work.finetune / "linked").symlink_to(work.finetune / "whole")
    before = snapshot(work.finetune)
    for name in ("unproven", "notes", "linked"):
        with pytest.raises(VggftError, match="not provably a run"):
            removal.remove(work.finetune / name)
    assert snapshot(work.finetune) == before


@pytest.mark.parametrize("damage", ["halved", "deleted", "a folder"])
def test_what_is_advised_for_a_finished_run_that_is_damaged_works(work, damage):
    (finished,) = store.load_all(work.finetune)
    folder = work.finetune / finished.name
    record = folder / "run.json"
    content = record.read_bytes()
    record.unlink()
    if damage == "halved":
        record.write_bytes(content[: len(content) // 2])
    elif damage == "a folder":
        record.mkdir()
    with pytest.raises(VggftError, match=f"vggft runs --remove {finished.name} deletes this run"):
        store.load_all(work.finetune)
    assert removal.remove(folder) == ([record] if damage == "a folder" else [])
    assert folder.exists() == (damage == "a folder")


def test_what_nothing_proves_is_not_to_be_removed_by_a_command(work):
    (finished,) = store.load_all(work.finetune)
    folder = work.finetune / finished.name
    for path in [path for path in folder.iterdir() if path.is_file()]:
        path.write_bytes(b"{")
    for other in ("damaged", "elsewhere", "stale", "whole"):
        shutil.rmtree(work.finetune / other)
    with pytest.raises(VggftError, match=f"delete {folder} yourself"):
        store.load_all(work.finetune)
    shown = vggft("runs", "-w", work.root)
    assert "runs --remove" not in shown.stdout + shown.stderr


def test_a_copy_is_called_a_copy_and_can_be_removed(work):
    (finished,) = store.load_all(work.finetune)
    for name, copy in ((finished.name, "second"), ("whole", "third")):
        shutil.copytree(work.finetune / name, work.finetune / copy)
    done = vggft("runs", "-w", work.root, "--json")
    states = {run["name"]: run["state"] for run in strict_json(done.stdout)["runs"]}
    assert states["second"] == states["third"] == "copy"
    assert f"finetune/second: a copy of the run '{finished.name}'" in done.stderr
    assert "finetune/third: a copy of the run 'whole'" in done.stderr
    removed = vggft("runs", "--remove", "second", "--remove", "third", "--yes", "-w", work.root, "--json")
    assert strict_json(removed.stdout)["removed"] == ["second", "third"]
    assert not (work.finetune / "second").exists()
    assert [run.name for run in store.load_all(work.finetune)] == [finished.name]


@pytest.mark.parametrize("unlinks", [1, 4])
def test_the_removal_of_a_damaged_run_is_repeated_after_an_interruption(work, monkeypatch, unlinks):
    (finished,) = store.load_all(work.finetune)
    folder = work.finetune / finished.name
    (folder / "run.json").write_bytes(b"{")
    unlink, count = Path.unlink, iter(range(unlinks + 1))

    def killed(path, **arguments):
        if next(count) == unlinks:
            raise KeyboardInterrupt
        unlink(path, **arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", killed)
        removal.remove(folder)
    assert removal.remove(folder) == []
    assert not folder.exists()


def test_a_removal_that_was_interrupted_is_repeated(work, monkeypatch):
    folder = work.finetune / "whole"
    unlink, left = Path.unlink, [1]

    def killed(path, **arguments):
        if not left.pop():
            raise KeyboardInterrupt
        left.append(0)
        unlink(path, **arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", killed)
        removal.remove(folder)
    assert removal.is_run(folder)
    assert removal.remove(folder) == []
    assert not folder.exists()


def test_what_an_interruption_keeps_is_what_resume_finds(work, monkeypatch):
    """Before a run is begun nothing is kept; then the run, also before its first checkpoint."""
    ui = Ui(quiet=True)
    ui.keep("Nothing was changed.")

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(new_run, "_require_images", stop)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(work, FinetuneOptions(name="new"), ui)
    assert ui.kept == "Nothing was changed."
    assert not (work.finetune / "new").exists()
    monkeypatch.setattr(new_run, "_require_images", lambda *arguments: None)
    for step in (new_run, resumption):
        monkeypatch.setattr(step, "prepare", stop)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(work, FinetuneOptions(name="new"), ui)
    assert ui.kept.endswith(f"Continue with: vggft finetune --resume --name new -w {work.root}")
    assert "new" in [run.folder.name for run in store.unfinished(work.finetune)]
    ui.keep("")
    with pytest.raises(KeyboardInterrupt):
        finetune.run(work, FinetuneOptions(resume=True), ui)
    assert "--name new " in ui.kept


def test_resume_takes_the_last_run_that_it_can_continue(work, monkeypatch, capsys):
    def prepared(job, ui, inputs):
        raise VggftError(job.settings.name)

    monkeypatch.setattr(resumption, "prepare", prepared)
    with pytest.raises(VggftError, match=r"^whole$"):
        finetune.run(work, FinetuneOptions(resume=True), Ui())
    assert "run stale stays unfinished: this resumes whole" in capsys.readouterr().err
    removal.remove(work.finetune / "whole")
    removal.remove(work.finetune / "damaged")
    again = (
        rf"start a new run: vggft finetune -w {work.root} \(vggft runs --remove %s -w {work.root} deletes this one\)$"
    )
    with pytest.raises(VggftError, match=f"Set KERAS_BACKEND=another, or {again % 'elsewhere'}"):
        finetune.run(work, FinetuneOptions(resume=True), Ui())
    with pytest.raises(
        VggftError, match=rf"--resume: the run stale is stale: images, .* since it was begun\. .*{again % 'stale'}"
    ):
        finetune.run(work, FinetuneOptions(name="stale", resume=True), Ui())
    with pytest.raises(VggftError, match=f"Start it: vggft finetune --name nope -w {work.root}$"):
        finetune.run(work, FinetuneOptions(name="nope", resume=True), Ui())


def test_what_a_damaged_run_lost_is_said_and_epochs_come_from_the_checkpoint(work):
    (finished,) = store.load_all(work.finetune)
    run = work.finetune / "whole"
    state = State(finished.history, finished.start_validation, finished.validation, [], [], [])
    store.Unfinished(run).save(state)
    (run / "history.csv").write_text("")  # as if the process had been killed between checkpoint and curve

    def listed():
        done = vggft("runs", "-w", work.root, "--json")
        return {entry["name"]: entry for entry in strict_json(done.stdout)["runs"]}, done.stderr

    found, said = listed()
    assert found["whole"]["epochs"] == finished.history[-1].epoch
    assert found["whole"]["log_loss"] == min(epoch.val_log_loss for epoch in finished.history)
    assert "damaged/unfinished/settings.json: damaged" in said
    (work.finetune / finished.name / "run.json").unlink()
    checkpoint = run / "unfinished" / "checkpoint.bin"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    found, said = listed()
    assert found["whole"]["state"] == found[finished.name]["state"] == "damaged"
    assert "whole/unfinished/checkpoint.bin: damaged" in said
    assert f"{finished.name}/run.json: damaged" in said
    checkpoint.unlink()
    found, said = listed()
    assert (found["whole"]["state"], found["whole"]["epochs"]) == ("unfinished", 0)
    assert "whole/unfinished/checkpoint.bin: missing, so whole is trained again from epoch 0" in said
