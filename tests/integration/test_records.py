"""Records that another program wrote, with right checksums: what is wrong in them is found before anything uses it."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from conftest import refused, rewrite, vggft
from tiny import TINY

from featurize.data import assigned
from featurize.disk import checked, durable, forms
from featurize.errors import VggftError
from featurize.options import records
from heads.history import Epoch
from vggft.prediction import models
from vggft.workspace.workspace import Workspace


def changed(path, change):
    """Change a JSON record; `change`: what is replaced, keys with dots → value; None removes a key."""
    stored = json.loads(path.read_text())
    for key, value in change.items():
        *place, last = key.split(".")
        inner = stored
        for name in place:
            inner = inner[name]
        if value is None:
            del inner[last]
        else:
            inner[last] = value
    rewrite(path, json.dumps(stored))


def left_out(workspace):
    damage = []
    found = models.load(workspace, damage.append)
    return {model.name for model in found.fresh}, [str(error) for error in damage]


RUN = {
    "a name outside": {"settings.name": "../../elsewhere"},
    "an absolute name": {"settings.name": "/tmp/elsewhere"},
    "no name": {"settings.name": None},
    "text for a number": {"seconds": "1.0"},
    "a negative time": {"seconds": -1.0},
    "a log-loss of a list": {"validation.log_loss": [1.0]},
    "NaN": {"validation.log_loss": float("nan")},
    "a number that is no float": {"validation.log_loss": 10**400},
    "images without end": {"validation.n": 10**400},
    "an accuracy of 2": {"validation.accuracy": 2},
    "a true epoch": {"best_epoch": True},
    "an unknown end": {"ended": "well"},
    "another class": {"classes": ["birds", "fruit", "more"]},
    "an unknown layer": {"settings.unfreeze": "block9"},
    "another split point": {"settings.split_point": "block1_pool"},
    "a batch of 0": {"settings.plan.batch_size": 0},
    "an unknown setting": {"settings.plan.rate": 1},
    "no plan": {"settings.plan": None},
    "an unknown block": {"settings.unfreeze": "block99", "settings.split_point": "block99"},
    "an unknown layer that moved": {"moved": ["nolayer"]},
    "a frozen layer that moved": {"moved": ["block1_conv1"]},
    "a class twice": {"classes": ["birds", "birds"]},
    "a best epoch that was not": {"best_epoch": 99},
    "a start outside": {"start": "../x"},
    "a chosen start outside": {"settings.start": "../x"},
    "no sha256 of the start": {"start_digest": "ab"},
    "no sha256 of the network": {"network_sha256": ""},
    "no history": {"history": []},
    "an epoch of text": {"history": ["one"]},
}


@pytest.mark.parametrize("kind", RUN)
def test_a_run_that_vggft_did_not_write_is_left_out_and_named(again, kind):
    (path,) = again.finetune.glob("*/run.json")
    changed(path, RUN[kind])
    fresh, damage = left_out(again)
    assert path.parent.name not in fresh
    assert len(fresh) == 6
    assert len(damage) == 1
    assert path.parent.name in damage[0]


@pytest.mark.parametrize("order", [slice(None, None, -1), slice(1, None), slice(0, None, 2)])
def test_a_learning_curve_has_all_epochs_in_their_order(again, order):
    (path,) = again.finetune.glob("*/run.json")
    history = json.loads(path.read_text())["history"]
    assert [epoch["epoch"] for epoch in history] == [0, 1, 2]
    changed(path, {"history": history[order]})
    fresh, damage = left_out(again)
    assert path.parent.name not in fresh
    assert "history" in damage[0] or "best_epoch" in damage[0]
    assert vggft("runs", "-w", again.root, "--json").stdout.count('"damaged"') == 1


HEAD = {
    "another name": ("head.json", {"name": "avg-linear"}),
    "a name outside": ("head.json", {"name": "../max-256"}),
    "classes of a number": ("head.json", {"classes": [1, 2]}),
    "a class twice": ("head.json", {"classes": ["birds", "birds"]}),
    "a class more": ("head.json", {"classes": ["birds", "fruit", "more"]}),
    "an unknown pooling": ("head.json", {"pooling": "mean"}),
    "another pooling": ("head.json", {"pooling": "avgmax"}),
    "other units": (
        "head.json",
        {"layers": [{"units": 8, "activation": "relu"}, {"units": 1, "activation": "sigmoid"}]},
    ),
    "no layers": ("head.json", {"layers": []}),
    "another activation": ("head.json", {"layers": [{"units": 256, "activation": "tanh"}]}),
    "a recipe of text": ("head.json", {"provenance.recipe": "mine"}),
    "a recipe without a kind": ("head.json", {"provenance.recipe": {}}),
    "folds of text": ("head.json", {"provenance.training_folds": "five"}),
    "metrics of another head": ("metrics.json", {"name": "avg-linear"}),
    "metrics of other classes": ("metrics.json", {"validation.per_class": []}),
    "no images": ("metrics.json", {"validation.n": 0}),
    "infinity": ("metrics.json", {"validation.log_loss": float("inf")}),
    "a number that is no float": ("metrics.json", {"seconds": 10**400}),
    "a text": ("metrics.json", {"seconds": "fast"}),
}


@pytest.mark.parametrize("kind", HEAD)
def test_a_head_that_vggft_did_not_write_is_left_out_and_named(again, kind):
    name, change = HEAD[kind]
    changed(again.heads / "max-256" / name, change)
    fresh, damage = left_out(again)
    assert "max-256" not in fresh
    assert len(fresh) == 6
    assert len(damage) == 1
    assert "max-256" in damage[0]


@pytest.mark.parametrize("content", ["", "[" * 100_000, "[]", "3", "null", '"text"', "{", '{"version": 4}', "\xff\xfe"])
def test_no_json_is_a_traceback(again, content):
    places = [again.heads / "max-256" / "head.json", again.heads / "max-linear" / "metrics.json"]
    for path in [*places, *again.finetune.glob("*/run.json")]:
        path.write_bytes(content.encode("latin-1"))
        (path.parent / checked.CHECKSUMS).unlink()
    fresh, damage = left_out(again)
    assert len(fresh) == 4
    assert len(damage) == 3
    for name in ("workspace.json", checked.CHECKSUMS):
        before = (again.root / name).read_bytes()
        (again.root / name).write_bytes(content.encode("latin-1"))
        with pytest.raises(VggftError, match="damaged"):
            _ = Workspace(again.root, TINY).settings
        (again.root / name).write_bytes(before)


def test_classes_in_another_order_are_no_model_of_this_workspace(again):
    changed(again.heads / "max-256" / "head.json", {"classes": ["fruit", "birds"]})
    (run,) = again.finetune.glob("*/run.json")
    changed(run, {"classes": ["fruit", "birds"]})
    found = models.load(again)
    assert {model.name for model in found.stale} == {"max-256", run.parent.name}
    assert found.fitting == ()


def test_a_copied_run_counts_once(again):
    (run,) = again.finetune.iterdir()
    shutil.copytree(run, again.finetune / "copy")
    fresh, damage = left_out(again)
    assert run.name in fresh
    assert len(damage) == 1
    assert "finetune/copy: a copy of the run" in damage[0]


def test_one_damaged_head_blocks_no_command(again):
    (again.heads / "max-256" / "head.json").write_text("{")
    from vggft.steps import starts

    damage = []
    assert starts.choose(again, "best", damage.append).name != "max-256"
    assert starts.choose(again, "max-linear", damage.append).name == "max-linear"
    assert len(damage) == 2
    message = refused("finetune", "--from", "max-256", "-w", again.root)
    assert "no such head" in message


def test_weights_that_unpack_to_more_than_their_file_are_refused(again):
    path = again.heads / "max-256" / "weights.npz"
    with np.load(path) as arrays:
        stored = dict(arrays)
    np.savez_compressed(path, **stored)
    data = path.read_bytes()
    rewrite(path.with_name("head.json"), path.with_name("head.json").read_text())
    description = json.loads(path.with_name("head.json").read_text())
    description["weights_sha256"] = durable.sha256(path)
    checked.write_checked(path.parent, {path.name: data, "head.json": json.dumps(description).encode()})
    _, damage = left_out(again)
    assert "kernel0.npy is compressed" in damage[0]


def test_what_a_field_takes():
    row = {"epoch": 1, "loss": None, "accuracy": 0.5, "val_log_loss": 1, "val_accuracy": 1.0, "seconds": 0.1}
    assert records.build(Epoch, row) == Epoch(1, None, 0.5, 1.0, 1.0, 0.1)
    for key, value in (
        ("epoch", -1),
        ("epoch", 1.0),
        ("epoch", True),
        ("accuracy", 1.1),
        ("accuracy", float("nan")),
        ("seconds", None),
        ("seconds", "0"),
        ("seconds", float("inf")),
        ("seconds", 10**400),
        ("loss", -(10**400)),
        ("epoch", 10**400),
        ("more", 1),
    ):
        with pytest.raises(ValueError, match=key):
            records.build(Epoch, {**row, key: value})
    with pytest.raises(ValueError, match="no seconds"):
        records.build(Epoch, {key: value for key, value in row.items() if key != "seconds"})


MANIFEST = {
    "an absolute path": ("path", "/etc/1.png"),
    "a path outside": ("path", "../1.png"),
    "another class": ("label", "bats"),
    "no digest": ("digest", ""),
    "half a digest": ("digest", "ab"),
    "a size of text": ("size", "large"),
    "an unknown status": ("status", "fine"),
}


@pytest.mark.parametrize("kind", MANIFEST)
def test_a_manifest_that_vggft_did_not_write_is_refused(again, kind):
    column, value = MANIFEST[kind]
    rows = checked.read_csv(again.manifest)
    rows[0][column] = value
    table = forms.csv_bytes(list(rows[0]), [list(row.values()) for row in rows])
    settings = again.root / "workspace.json"
    stored = {**json.loads(settings.read_text()), "manifest_sha256": hashlib.sha256(table).hexdigest()}
    checked.write_checked(again.root, {"manifest.csv": table, "workspace.json": json.dumps(stored).encode()})
    with pytest.raises(VggftError, match=r"manifest\.csv: missing or damaged"):
        _ = Workspace(again.root, TINY).dataset


@pytest.mark.parametrize(
    "change", [{"fingerprint.size": -1}, {"fingerprint.size": 10**9}, {"classes": "birds"}, {"shares.validate": 2}]
)
def test_settings_that_vggft_did_not_write_are_refused(again, change):
    changed(again.root / "workspace.json", change)
    with pytest.raises(VggftError, match=r"workspace\.json: damaged"):
        _ = Workspace(again.root, TINY).settings


def test_workspaces_of_earlier_versions_are_read(again):
    """They have no checksums, and the learning curve of a run only in its CSV file."""
    before, damage = models.load(again), []
    for path in again.root.rglob(checked.CHECKSUMS):
        path.unlink()
    (path,) = again.finetune.glob("*/run.json")
    stored = json.loads(path.read_text())
    del stored["history"]
    path.write_text(json.dumps(stored))
    found = models.load(Workspace(again.root, TINY), damage.append)
    assert damage == []
    assert [model.name for model in found.fresh] == [model.name for model in before.fresh]
    assert [model.validation for model in found.fresh] == [model.validation for model in before.fresh]
    assert found.networks[0].history == before.networks[0].history
    assert assigned.read(again.splits)


@pytest.mark.parametrize("name", ["logistic-max", "max-linear"])
def test_a_deleted_curve_or_search_is_named(again, name):
    (again.heads / name / "history.csv").unlink()
    names, damage = left_out(again)
    assert name not in names
    assert damage == [f"{again.heads / name}: damaged (No such file or directory). Train it again: vggft head"]
