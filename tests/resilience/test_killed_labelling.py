"""kill -9 while keys are recorded: every key that was answered is in the list, which the next start reads."""

import random
import time
from itertools import islice

import pytest
from conftest import paint
from processes import Fork, wait_until

from vggft.labelling.decisions import FILE, Decisions
from vggft.labelling.pictures import Pictures, number
from vggft.labelling.session import Choice, Press, Session


def pictures(root):
    for i in range(8):
        paint(root / f"{i}.png", (0, 30 * i, 0))
    return root


def press_keys(root):
    """Decide, change and undo, the same each time; yield the labels after each key."""
    draw = random.Random(0)
    of = Session(Pictures.below(root), Decisions(root / FILE), ["cats", "dogs"])
    files = list(of.pictures.by_file)
    for n in range(1, 100_000):
        if draw.random() < 0.3:
            press = Press("w", n, "undo", step=draw.randrange(1, n + 1))
        else:
            some, label = draw.sample(files, draw.choice((1, 1, 3))), draw.choice(("cats", "dogs", ""))
            press = Press("w", n, "decide", tuple(Choice(number(file), label) for file in some))
        of.take([press])
        yield of.decisions.labels


def count_keys(root):
    for n, _ in enumerate(press_keys(root), 1):
        print(n, flush=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_every_key_that_was_answered_is_there(tmp_path, seed):
    root = pictures(tmp_path / "photos")
    process = Fork(count_keys, root)
    wait_until(lambda: process.written()[0].count("\n") > 20, process)
    time.sleep(random.Random(seed).random() / 5)
    process.kill()
    answered = process.communicate()[0].count("\n")
    # The key after the last one that was answered may have been recorded, too.
    possible = list(islice(press_keys(pictures(tmp_path / "again")), answered + 1))[-2:]
    assert Decisions(root / FILE).labels in possible
