"""The lock of a folder that is sorted, and its record: who may use its token again."""

import os
from pathlib import Path

import pytest

from featurize.errors import VggftError
from vggft.labelling import seat

TOKEN = "t" * 32


@pytest.fixture
def root(tmp_path):
    with seat.taken(tmp_path) as held:
        held.take(1234, TOKEN, ["cats"])
    return tmp_path


def token(root):
    with seat.taken(root) as held:
        return held.token


def test_one_sorter_in_a_folder(root):
    with seat.taken(root) as held:
        held.take(1234, TOKEN, ["cats"])
        why = rf"process {os.getpid()} on .* is sorting here.*http://127.0.0.1:1234/#ttt"
        with pytest.raises(VggftError, match=why), seat.taken(root):
            pass
    assert (root / seat.RECORD).stat().st_mode & 0o777 == 0o600
    with seat.taken(root) as held:
        assert (held.port, held.token, held.classes) == (1234, TOKEN, ("cats",))


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_token_that_others_could_read_is_not_used_again(root):
    (root / seat.RECORD).chmod(0o644)  # somebody else may have read the token
    with seat.taken(root) as held:
        assert (held.port, held.classes) == (0, ())
        assert len(held.token) == 32


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("error", [None, PermissionError(1, "not permitted")])
def test_on_a_disk_without_permissions_pages_go_on(root, monkeypatch, error):
    """There, every file has the same ones, and changing them fails or does nothing."""
    (root / seat.RECORD).chmod(0o777)

    def chmod(self, mode):
        if error:
            raise error

    monkeypatch.setattr(Path, "chmod", chmod)
    assert token(root) == TOKEN


def test_the_token_is_new_some_time_after_an_orderly_end(root, monkeypatch):
    now = [seat.time.time()]
    monkeypatch.setattr(seat.time, "time", lambda: now[0])
    now[0] += 10_000
    assert token(root) == TOKEN  # killed: pages may hold keys
    with seat.taken(root) as held:
        held.leave()
    now[0] += 3599
    assert token(root) == TOKEN
    now[0] += 2
    assert token(root) != TOKEN
    with seat.taken(root) as held:
        held.take(1234, TOKEN, ["cats"])
    now[0] += 10_000
    assert token(root) == TOKEN
