"""Users without a home folder: in containers, HOME may not be set and the user may have no entry."""

import pwd
import tempfile
from pathlib import Path

import numpy as np
import pytest
from tiny import TINY

from featurize import engines
from featurize.backbone import weights as weight_files
from featurize.backbone.vgg16 import VGG16
from featurize.cache.fingerprint import Fingerprint
from featurize.engines import converted
from featurize.errors import VggftError
from featurize.process import places
from vggft.workspace.workspace import Workspace


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty temporary folder."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def homeless(temporary, monkeypatch):
    """No home folder; the temporary folder instead."""

    def nobody(uid):
        raise KeyError(uid)

    for name in ("HOME", "KERAS_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    return temporary


def test_without_a_home_the_users_part_of_the_temporary_folder_takes_its_place(homeless):
    assert places.home() is None
    assert places.keras() == places.private() / ".keras"
    assert places.private().parent == homeless
    assert converted._folders() == [places.private() / "mnn"]
    assert VGG16.keras_file.path.parent == places.private() / ".keras" / "models"
    weight_files.available(VGG16)


def test_with_a_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    assert places.keras() == tmp_path / ".keras"
    assert places.expanded(Path("~/work")) == tmp_path / "work"
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    assert places.keras() == tmp_path / "keras"


def test_a_path_that_needs_a_home_is_an_error(homeless):
    with pytest.raises(VggftError, match=r"~/work: .*home directory.* Write the path without ~"):
        Workspace(Path("~/work"), TINY)


def test_keras_leaves_nothing_in_the_temporary_folder(temporary, weights):
    engine = engines.KerasEngine(weights, Fingerprint.of(TINY))
    engine(np.zeros((2, 32, 32, 3), np.uint8), [TINY.top])
    assert list(temporary.iterdir()) == []
