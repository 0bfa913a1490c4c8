"""The folder of MNN's converted networks: each is made once, checked before use, and the folder stays small."""

import hashlib
import os
import shutil
import tempfile
import time

import pytest

from featurize.engines import converted
from featurize.errors import VggftError

KEY = "ab" * 32


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "cache" / "vggft" / "mnn"


class Converter:
    """Writes the same bytes each time, and counts."""

    def __init__(self, data=b"network"):
        self.data, self.calls = data, 0

    def __call__(self, folder):
        self.calls += 1
        (folder / "part.onnx").write_bytes(b"")
        (folder / "part.mnn").write_bytes(self.data)
        return folder / "part.mnn"


def test_a_network_is_converted_once(folder):
    convert = Converter()
    path = converted.network(KEY, 1, convert)
    assert path == converted.network(KEY, 1, convert)
    assert path.read_bytes() == b"network"
    assert path.name == f"{KEY[:32]}-{hashlib.sha256(b'network').hexdigest()}.mnn"
    assert list(folder.iterdir()) == [path]  # and nothing of the conversion
    converted.network("cd" * 32, 1, convert)
    assert convert.calls == 2


@pytest.mark.parametrize("damage", [b"", b"netwerk", b"network, and more"])
def test_a_damaged_network_is_converted_again(folder, damage):
    convert = Converter()
    path = converted.network(KEY, 1, convert)
    path.write_bytes(damage)
    assert converted.network(KEY, 1, convert).read_bytes() == b"network"
    assert convert.calls == 2


def test_the_folder_stays_small(folder, monkeypatch):
    monkeypatch.setattr(converted, "MOST_BYTES", 250)
    (folder / "mine.mnn").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    paths = []
    for i in range(2):
        paths.append(converted.network(f"{i}" * 64, 1, Converter(bytes([i]) * 100)))
        os.utime(paths[-1], (i, i))
    assert converted.network("0" * 64, 1, None) == paths[0]  # and so it was not used longest ago
    paths.append(converted.network("2" * 64, 1, Converter(b"2" * 100)))
    assert [path.exists() for path in paths] == [True, False, True]
    assert {"mine.mnn", "notes.txt"} < {path.name for path in folder.iterdir()}


def test_what_a_killed_process_left_is_deleted(folder):
    def killed(temporary):
        Converter()(temporary)
        shutil.copytree(temporary, temporary.with_name(".killed.vggft.tmp"))
        shutil.copytree(temporary, temporary.with_name(".running.vggft.tmp"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        converted.network(KEY, 1, killed)
    os.utime(folder / ".killed.vggft.tmp", (time.time() - 1000,) * 2)
    path = converted.network(KEY, 1, Converter())
    assert set(folder.iterdir()) == {path, folder / ".running.vggft.tmp"}


def test_where_there_is_no_home_or_it_cannot_be_written(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(converted, "user_cache_path", lambda *names, **options: converted.Path("~/.cache/vggft"))
    path = converted.network(KEY, 1, Converter())
    assert path.parent == tmp_path / "tmp" / f"vggft-{os.getuid()}" / "mnn"
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(converted, "user_cache_path", lambda *names, **options: tmp_path / "file" / "vggft")
    assert converted.network(KEY, 1, Converter()) == path
    assert path.parent.stat().st_mode & 0o077 == 0  # the temporary folder is everybody's


def test_nobody_else_can_put_a_network_there(folder, tmp_path):
    theirs = tmp_path / "theirs"
    network = converted.network(KEY, 1, Converter())
    shutil.move(folder, theirs)
    folder.symlink_to(theirs)
    assert converted.network(KEY, 1, Converter()).parent.parent.parent == tmp_path / "tmp"
    assert (theirs / network.name).exists()


def test_no_room_anywhere(folder):
    with pytest.raises(VggftError, match=r"needs a folder with \d+ MB of free space .*not enough free space.*TMPDIR"):
        converted.network(KEY, 10**18, Converter())
    with pytest.raises(VggftError, match="not written completely"):
        converted.network(KEY, 10**6, Converter())
    assert list(folder.iterdir()) == []
