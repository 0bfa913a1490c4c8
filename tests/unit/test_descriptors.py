"""Redirection of file descriptors 1 and 2: only in the command line, and always undone."""

import ctypes
import os
import subprocess
import sys
import tempfile
import threading

import pytest

from featurize.process import descriptors


@pytest.mark.skipif(os.name != "posix", reason="the C library is not to be found by that name")
def test_what_c_prints_is_hidden_unless_it_fails(capfd, monkeypatch):
    monkeypatch.setattr(descriptors, "_hiding", True)
    puts = ctypes.CDLL(None).puts  # into a buffer here, because descriptor 1 is no terminal
    with descriptors.hidden():
        puts(b"chatter")
    with pytest.raises(RuntimeError, match="broken"), descriptors.hidden():
        puts(b"why it broke")
        raise RuntimeError("broken")
    with pytest.raises(ImportError), descriptors.hidden():
        puts(b"not installed")
        raise ImportError
    with descriptors.redirected(2, 1):
        puts(b"elsewhere")
    puts(b"afterwards")
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr() == ("afterwards\n", "why it broke\nelsewhere\n")


def test_a_python_program_keeps_its_descriptors(monkeypatch):
    """Also while several threads load something at once."""
    monkeypatch.setattr(descriptors, "_hiding", False)
    before = [(os.fstat(number).st_dev, os.fstat(number).st_ino) for number in (1, 2)]
    together, seen = threading.Barrier(4, timeout=10), []

    def load():
        with descriptors.hidden():
            together.wait()
            seen.append([(os.fstat(number).st_dev, os.fstat(number).st_ino) for number in (1, 2)])

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [before] * 4


def test_threads_of_the_command_line_share_one_redirection(monkeypatch, capfd):
    """However they overlap, the descriptors are those from before in the end; and without a temporary folder, too."""
    files = [os.fstat(number).st_ino for number in (1, 2)]
    second_began, first_ended = threading.Event(), threading.Event()

    def first():
        with descriptors.hidden():
            assert second_began.wait(10)
        first_ended.set()

    def second():
        with descriptors.hidden():
            second_began.set()
            assert first_ended.wait(10)
            os.write(1, b"chatter")

    with monkeypatch.context() as patch, descriptors.hiding_libraries():
        patch.setattr(tempfile, "tempdir", "/nowhere")
        threads = [threading.Thread(target=load) for load in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [os.fstat(number).st_ino for number in (1, 2)] == files
    assert capfd.readouterr() == ("", "")
    with descriptors.hidden():
        os.write(1, b"no command line")
    assert capfd.readouterr().out == "no command line"


@pytest.mark.parametrize("missing", ["stdout", "stderr"])
def test_streams_that_a_program_took_away(missing):
    """As under pythonw and in some notebooks."""
    program = (
        f"import sys; from featurize.process import descriptors; sys.{missing} = None\n"
        "with descriptors.hiding_libraries(), descriptors.hidden(): pass"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
