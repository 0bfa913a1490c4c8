"""Ctrl-C and SIGTERM: raised at the next check; without one, the process exits within two seconds."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from processes import command, start

from vggft.cli import app

LISTENING = """
import os, signal, sys, threading, time
from featurize.process import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell's & had it ignored
interrupts.listen()
interrupts.announce("interrupted. Nothing is lost.", lambda message: print({"error": message}, flush=True))

def come(number=signal.SIGINT):
    os.kill(os.getpid(), number)
    time.sleep(0.1)
"""


def ended(program, **options):
    """Run a program that listens; return its exit code, output, messages, and seconds."""
    began = time.monotonic()
    command = [sys.executable, "-c", LISTENING + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)
    return done.returncode, done.stdout, done.stderr, time.monotonic() - began


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_the_next_check_raises_once(number):
    program = f"""
come(signal.{number})  # in a library, say: nothing is raised
print("went on", interrupts.heard())
try:
    interrupts.check()
except KeyboardInterrupt:
    interrupts.check()  # putting things in order is not interrupted again
    print("raised")
"""
    assert ended(program)[:3] == (0, "went on True\nraised\n", "")


def test_nothing_is_raised_in_another_thread():
    program = """
come()
thread = threading.Thread(target=lambda: (interrupts.check(), print("went on")))
thread.start()
thread.join()
interrupts.check()
"""
    code, out, err, _ = ended(program)
    assert (code, out) == (-signal.SIGINT, "went on\n")
    assert err.endswith("KeyboardInterrupt\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "wait",
    [
        "sys.stdin.read()",
        "time.sleep(60)",
        "threading.Event().wait()",
        "__import__('hashlib').pbkdf2_hmac('sha256', b'', b'', 10**9)",  # one call of C, minutes long
        "exec('while True: pass')",
        "os.open('fifo', os.O_RDONLY)",
    ],
)
def test_where_no_check_comes_the_process_ends(tmp_path, wait):
    os.mkfifo(tmp_path / "fifo")
    program = f"threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n{wait}"
    end, other = os.pipe()  # standard input that never comes
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    code, out, err, seconds = ended(program, stdin=end, cwd=tmp_path, env=environment)
    os.close(end)
    os.close(other)
    assert (code, err) == (130, "error: interrupted. Nothing is lost.\n")
    assert out == "{'error': 'interrupted. Nothing is lost.'}\n"
    assert seconds < 4


@pytest.mark.slow
def test_a_second_signal_ends_at_once_and_one_that_is_repeated_does_not():
    program = """
began = time.monotonic()
come(), come()  # the terminal's, and a wrapper's
try:
    interrupts.check()
except KeyboardInterrupt:
    time.sleep(1.5)
    print("still here", flush=True)
    come()
    time.sleep(60)
"""
    code, out, err, seconds = ended(program)
    assert (code, err) == (130, "error: interrupted. Nothing is lost.\n")
    assert out.startswith("still here")
    assert seconds < 5


@pytest.mark.slow
def test_there_is_time_to_put_things_in_order():
    program = """
come()
try:
    interrupts.check()
except KeyboardInterrupt:
    time.sleep(2.5)
    print("written")
"""
    assert ended(program)[:2] == (0, "written\n")


def test_an_interrupt_that_python_ignores_is_raised_again():
    """As in a finalizer, in a callback of C, and in the cleanup of a generator that is collected."""
    program = """
class Finalized:
    def __del__(self):
        interrupts.check()
come()
Finalized()
print("went on")
try:
    interrupts.check()
except KeyboardInterrupt:
    try:
        raise OSError("while tidying up")
    except OSError:
        interrupts.check()
    print("raised")
"""
    code, out, err, _ = ended(program)
    assert (code, out) == (0, "went on\nraised\n")
    assert "Exception ignored" in err


@pytest.mark.slow
def test_an_interrupt_that_a_library_swallows_ends_the_process():
    program = """
come()
try:
    interrupts.check()
except BaseException:
    pass
time.sleep(60)
"""
    code, _, err, seconds = ended(program)
    assert (code, err) == (130, "error: interrupted. Nothing is lost.\n")
    assert seconds < 4


def test_what_is_ignored_stays_ignored():
    """As a shell's `&` or nohup has it; SIGTERM is heard all the same."""
    program = LISTENING.replace("default_int_handler)", "SIG_IGN)") + (
        "come(); print(interrupts.heard()); come(signal.SIGTERM); print(interrupts.heard())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_a_person_is_answered_at_once():
    """On a terminal, also while descriptor 2 is another file, as it is while TensorFlow is imported."""
    ours, theirs = os.openpty()
    program = "os.dup2(os.open(os.devnull, os.O_WRONLY), 2); print('ready', flush=True); threading.Event().wait()"
    process = subprocess.Popen([sys.executable, "-c", LISTENING + program], stdout=subprocess.PIPE, stderr=theirs)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    began, shown = time.monotonic(), b""
    while b"stopping ..." not in shown:
        shown += os.read(ours, 100)
    assert time.monotonic() - began < 0.5
    assert process.wait(10) == 130
    while b"Nothing is lost" not in shown:
        shown += os.read(ours, 100)
    assert b"\x1b[?25h" in shown  # the cursor, which a progress bar hides
    for descriptor in (ours, theirs):
        os.close(descriptor)
    process.stdout.close()


def test_threads_that_wait_for_a_file_do_not_keep_the_process(tmp_path):
    program = f"""
os.mkfifo({str(tmp_path / "fifo")!r})
try:
    with interrupts.threads(1) as pool:
        pool.submit(open, {str(tmp_path / "fifo")!r})
        come()
        interrupts.check()
except KeyboardInterrupt:
    print("over")
    interrupts.leave()
"""
    code, out, _, seconds = ended(program)
    assert (code, out) == (130, "over\n")
    assert seconds < 4


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_command_that_has_ended_does_not_wait_for_them(tmp_path, code):
    os.mkfifo(tmp_path / "fifo")
    program = f"""
from vggft import __main__
from vggft.cli import app
def main():
    with interrupts.threads(1) as pool:
        pool.submit(open, {str(tmp_path / "fifo")!r})
    print("over")
    sys.exit({code})
app.main = main
__main__.main()
"""
    found, out, _, seconds = ended(program)
    assert (found, out) == (code, "over\n")
    assert seconds < 4


def test_before_there_is_a_command_to_interrupt():
    program = (
        "from vggft import __main__; from vggft.cli import app\n"
        "def interrupted(): raise KeyboardInterrupt\n"
        "app.main = interrupted; __main__.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "error: interrupted.\n")
    program = "import sys, vggft.__main__; print([m for m in ('typer', 'rich', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"  # what takes time comes where it is met


def test_while_a_command_gets_ready():
    program = (
        "import os, signal; from featurize.process import interrupts; from vggft import __main__; listen = interrupts.listen\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "interrupts.listen = lambda: (listen(), os.kill(os.getpid(), signal.SIGINT))\n"
        "import sys; sys.argv = ['vggft', 'doctor', '--json']; __main__.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "error: interrupted. Nothing was changed.\n")
    assert done.stdout == '{"error": "interrupted. Nothing was changed."}\n'


def test_the_command_line_in_a_python_program_leaves_its_handlers(monkeypatch):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "argv", ["vggft", "finetune", "-w", "nowhere"])
    with pytest.raises(SystemExit):
        app.main()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1.0, pytest.param(3.0, marks=pytest.mark.slow)])
def test_predict_that_waits_for_a_list_can_be_interrupted(trained, seconds):
    """Wherever it comes: also while TensorFlow is imported, after which nothing would ask any more."""
    network = next((trained[0].finetune).iterdir()).name
    words = command("predict", "-", "--model", network, "-w", trained[0].root)
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(words, text=True, **pipes)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, err = process.stdout, process.stderr
    assert process.wait(timeout=30) == 130, (out.read(), err.read())
    assert "interrupted" in err.read()
    for stream in (process.stdin, out, err):
        stream.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage",
    [["head", "--epochs", "100000", "--patience", "100000"], ["finetune", "--epochs", "1000", "--patience", "1000"]],
)
def test_interrupted_at_any_moment(trained, tmp_path, stage):
    """While it starts, compiles or trains: it stops within seconds, by its own exit code, and says what is kept."""
    for attempt, seconds in enumerate((0.2, 0.7, 1.6, 4.0)):
        work = tmp_path / str(attempt)
        shutil.copytree(trained[0].root, work)
        process = start(*stage, *(["--retrain"] if stage[0] == "head" else ["--name", "again"]), "-w", work)
        time.sleep(seconds)
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130, (attempt, out, err)
        assert "interrupted. " in err
        assert "Traceback" not in err
