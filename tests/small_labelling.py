"""Folders to sort, a learner that knows everything, and the page's server in this process."""

import time
from contextlib import ExitStack, contextmanager

from conftest import paint

from featurize.disk import forms
from featurize.process import interrupts
from vggft.labelling import server
from vggft.labelling.app import application
from vggft.labelling.applying import ClassFolders
from vggft.labelling.background import Applying
from vggft.labelling.decisions import FILE, Decisions
from vggft.labelling.pictures import Pictures, number
from vggft.labelling.previews import THREADS, Previews
from vggft.labelling.session import Choice, Press, Session
from vggft.labelling.suggestions import Snapshot, Suggestion

TOKEN = "t" * 32


def photos(root, count, size=(40, 30)):
    """Write distinct pictures, 000.png, 001.png, …; return the folder."""
    for i in range(count):
        paint(root / f"{i:03}.png", (0, (37 * i) % 256, (91 * i) % 256), size)
    return root


class KnowsAll:
    """A learner whose suggestions are given: file → (class, probability)."""

    def __init__(self, suggestions):
        self._all = {file: Suggestion(*suggestion) for file, suggestion in suggestions.items()}
        self.learned = []
        self._snapshot = Snapshot(dict(self._all), 0, len(self._all), len(self._all))

    def learn(self, decisions):
        self.learned.append(dict(decisions))
        left = {file: suggestion for file, suggestion in self._all.items() if file not in decisions}
        self._snapshot = Snapshot(left, len(decisions), len(self._all), len(self._all))

    def snapshot(self):
        return self._snapshot

    def close(self):
        pass


def session(root, *classes, learner=None):
    return Session(Pictures.below(root), Decisions(root / FILE), classes, learner)


class Window:
    """A window: what it presses is numbered."""

    def __init__(self, of, name="window"):
        self.session, self.name, self.presses, self.decided = of, name, 0, {}

    def press(self, kind, **more):
        self.presses += 1
        return Press(self.name, self.presses, kind, **more)

    def decides(self, label, *files):
        return self.press("decide", choices=tuple(Choice(number(file), label) for file in files))

    def decide(self, label, *files):
        result = self.session.take([self.decides(label, *files)])[0]
        self.decided[result.get("step")] = files
        return result

    def undoes(self, step):
        return self.press("undo", step=step, ids=tuple(map(number, self.decided[step])))

    def undo(self, step):
        return self.session.take([self.undoes(step)])[0]

    def next(self, mode="order", count=3, label="", have=()):
        answer = self.session.next(self.name, mode, label, count, [number(file) for file in have])
        return [picture["name"] for picture in answer["pictures"]]


@contextmanager
def serving(of, ui, port=0):
    """Serve the page of a session; return its address."""
    with ExitStack() as stack:
        pool = stack.enter_context(interrupts.threads(THREADS))
        listener = server.listening(port, 0)
        stack.callback(listener.close)
        number_of_port = listener.getsockname()[1]
        root = of.pictures.root
        destination = ClassFolders.of(root, None)
        about = {
            "folder": str(root),
            "file": str(of.decisions.path),
            "into": str(destination.folder),
            "hows": destination.hows,
            "review": False,
        }
        app = application(of, Previews(pool), Applying(of, destination, ui), about, number_of_port, TOKEN)
        stack.enter_context(server.serving(app, listener, ui))
        yield f"http://127.0.0.1:{number_of_port}/#{TOKEN}"


def labels(root):
    """Return file → label, of the file of decisions."""
    path = root / FILE
    return {row["file"]: row["label"] for row in forms.parse_csv(path.read_bytes())} if path.exists() else {}


def stored(root):
    """Return file, label and step of each row."""
    return [(row["file"], row["label"], int(row["step"])) for row in forms.parse_csv((root / FILE).read_bytes())]


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def wait_for_picture(browser, name):
    """Wait until a person sees a picture."""
    script = "const image = document.getElementById('picture'); return image.hidden ? '' : image.alt"
    wait_for(lambda: browser.run(script) == name and browser.run("return document.getElementById('instead').hidden"))
