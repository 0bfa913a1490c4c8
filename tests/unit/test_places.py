"""Users without a home folder: in containers, HOME may not be set and the user may have no entry."""

import errno
import pwd
import tempfile
from pathlib import Path

import numpy as np
import pytest
from conftest import make_classes, refused
from tiny import TINY

from featurize import engines
from featurize.backbone import weights as weight_files
from featurize.backbone.vgg16 import VGG16
from featurize.cache.fingerprint import Fingerprint
from featurize.disk import checked
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


@pytest.mark.parametrize("below", [".", "deeper/work"])
def test_a_file_in_place_of_a_workspace_is_named_as_one(tmp_path, below):
    file = tmp_path / "file"
    file.touch()
    for command in (("featurize", tmp_path), ("head",), ("cache", "info")):
        assert f"{file}: not a folder. Expected the folder of a workspace" in refused(*command, "-w", file / below)


def test_a_link_to_itself_is_no_folder(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    make_classes(tmp_path / "data", a=2, b=2)
    assert f"{loop}: not a folder" in refused("featurize", loop, "-w", tmp_path / "work")
    assert f"{loop}: not a folder" in refused("featurize", tmp_path / "data", "-w", loop)
    for cache in (loop, loop / "deeper"):
        said = refused("featurize", tmp_path / "data", "-w", tmp_path / "work", "--cache", cache)
        assert f"--cache {loop}: not a folder" in said


def test_a_suggested_command_quotes_the_workspace(tmp_path):
    work = tmp_path / "a b; c"
    assert f"vggft featurize DATA -w '{work}'" in refused("head", "-w", work)


def test_a_file_without_permissions_is_not_to_be_deleted(copied, monkeypatch):
    settings, read = copied / "work" / "workspace.json", checked.durable.open_regular

    def refusing(path):
        if path == settings:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(checked.durable, "open_regular", refusing)
    said = refused("head", "-w", copied / "work")
    assert said == f"error: {settings}: cannot be read (Permission denied). Fix its permissions."
