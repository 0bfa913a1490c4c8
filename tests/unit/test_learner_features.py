"""Features of the files of a folder, chunk by chunk, in the cache of a workspace. The engine is a stand-in."""

import shutil

import numpy as np
import pytest
from conftest import drawings, paint, shards, strict_json, vggft
from tiny import TINY, StandIn

from featurize.cache.fingerprint import Fingerprint
from featurize.errors import VggftError
from heads.features import vectors
from vggft.labelling import pooled
from vggft.labelling.classifier import POOLING
from vggft.labelling.pooled import FIRST_CHUNK, PooledFeatures
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace


@pytest.fixture
def engine(monkeypatch):
    """The engine that is started; `rows`: how many pictures each of its batches had, and `starts`."""

    class Counting(StandIn):
        def __init__(self):
            super().__init__(TINY)
            self.rows, self.starts = [], 0

        def __call__(self, inputs, layers, below=None):
            self.rows.append(len(inputs))
            return super().__call__(inputs, layers, below)

    counting = Counting()

    def start(*arguments, **options):
        counting.starts += 1
        return counting

    monkeypatch.setattr(pooled, "start_engine", start)
    monkeypatch.setattr(pooled, "_PAUSE", 0)
    return counting


@pytest.fixture
def folder(tmp_path):
    """36 drawings in one folder."""
    drawings(tmp_path / "classes", 18, "bugs", "flowers")
    (tmp_path / "photos").mkdir()
    for path in sorted((tmp_path / "classes").glob("*/*")):
        shutil.copy(path, tmp_path / "photos" / path.name)
    return tmp_path / "photos"


def features_of(folder, work, files=None):
    names = files or sorted(path.name for path in folder.iterdir())
    return PooledFeatures(Workspace(work, TINY), folder, names, Ui(quiet=True))


def finish(features, *arguments):
    chunks = []
    while not features.complete:
        before = features.present.copy()
        features.advance(*arguments)
        chunks.append(np.flatnonzero(features.present & ~before).tolist())
    return chunks


def test_rows_are_the_pooled_features_in_the_cache(engine, folder, tmp_path):
    features = features_of(folder, tmp_path / "work")
    finish(features)
    cache = Workspace(tmp_path / "work", TINY).cache(Fingerprint.of(TINY))
    assert cache.layers == list(TINY.cached)
    digests = features._digests(range(36))
    row_of = {positions[0]: cache.read(TINY.top, [digest])[0] for digest, positions in digests.items()}
    expected = vectors(np.stack([row_of[i] for i in range(36)]), POOLING)
    assert np.array_equal(features.rows(np.arange(36)), expected)


def test_featurize_afterwards_computes_nothing(engine, folder, tmp_path):
    finish(features_of(folder, tmp_path / "work"))
    done = vggft("featurize", tmp_path / "classes", "-w", tmp_path / "work", "--json")
    assert done.returncode == 0, done.stderr
    result = strict_json(done.stdout)
    assert (result["computed"], result["reused"], result["engine"]) == (0, 36, None)
    assert done.stderr == ""


def test_nothing_is_computed_twice(engine, folder, tmp_path):
    first = features_of(folder, tmp_path / "work")
    first.advance()
    assert first.present.sum() == sum(engine.rows) == FIRST_CHUNK
    finish(features_of(folder, tmp_path / "work"))
    assert sum(engine.rows) == 36
    before = shards(tmp_path / "work")
    again = features_of(folder, tmp_path / "work")
    finish(again)
    assert again.present.all()
    assert (sum(engine.rows), engine.starts) == (36, 2)
    assert shards(tmp_path / "work") == before


def test_half_of_a_chunk_has_labels_and_half_needs_suggestions(engine, folder, tmp_path):
    features = features_of(folder, tmp_path / "work")
    decided = range(20)
    chunks = finish(features, decided, lambda position: position not in decided)
    assert chunks == [[*range(8), *range(20, 28)], [*range(8, 20), *range(28, 36)]]


def test_chunks_grow_only_while_they_are_quick(engine, folder, tmp_path, monkeypatch):
    assert [len(chunk) for chunk in finish(features_of(folder, tmp_path / "one"))] == [16, 20]
    monkeypatch.setattr(pooled, "_CHUNK_SECONDS", 0)
    assert [len(chunk) for chunk in finish(features_of(folder, tmp_path / "two"))] == [16, 16, 4]


def test_copies_are_computed_once_and_unreadable_files_are_named(engine, tmp_path):
    folder = tmp_path / "photos"
    paint(folder / "a.png", (0, 0, 200))
    shutil.copy(folder / "a.png", folder / "b.png")
    (folder / "c.png").write_text("no picture")
    (folder / "d.png").symlink_to("nowhere")
    features = features_of(folder, tmp_path / "work", ["a.png", "b.png", "c.png", "d.png", "gone.png"])
    finish(features)
    assert features.present.tolist() == [True, True, False, False, False]
    assert sum(engine.rows) == 1
    assert np.array_equal(*features.rows(np.array([0, 1])))
    assert features.unreadable.keys() == {2, 3, 4}
    assert "cannot be read: No such file" in features.unreadable[4]


def test_a_workspace_keeps_its_settings(engine, folder, tmp_path):
    done = vggft(
        "featurize", tmp_path / "classes", "-w", tmp_path / "work", "--preprocess", "raw", "--layers", TINY.top
    )
    assert done.returncode == 0, done.stderr
    paint(folder / "new.png", (10, 200, 30))
    before = Workspace(tmp_path / "work", TINY)
    manifest = before.manifest.read_bytes()
    features = features_of(folder, tmp_path / "work")
    finish(features)
    assert features.present.all()
    assert sum(engine.rows) == 1
    assert [path.name for path in (tmp_path / "work" / "cache").iterdir()] == [before.settings.fingerprint.key]
    assert before.cache().layers == [TINY.top]
    assert before.manifest.read_bytes() == manifest


def test_files_of_somebody_else_are_no_workspace(engine, folder, tmp_path):
    (tmp_path / "work" / "heads").mkdir(parents=True)
    (tmp_path / "work" / "heads" / "notes.txt").write_text("mine")
    with pytest.raises(VggftError, match="vggft cannot prove that it wrote this"):
        features_of(folder, tmp_path / "work").advance()
    assert sorted(path.name for path in (tmp_path / "work").rglob("*")) == ["heads", "notes.txt"]
    assert engine.rows == []


def test_a_lost_workspace_is_not_written(engine, folder, featurized, tmp_path):
    shutil.copytree(featurized[0] / "work", tmp_path / "work")
    (tmp_path / "work" / "workspace.json").unlink()
    with pytest.raises(VggftError, match=r"workspace\.json is missing\. Restore it"):
        features_of(folder, tmp_path / "work").advance()
    assert engine.rows == []
