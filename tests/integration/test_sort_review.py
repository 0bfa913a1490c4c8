"""`vggft sort --review`: doubtful labels of a workspace on the page, a kill, applying the corrections, and undoing them."""

import json
import urllib.request

import pytest
from conftest import drawings, refused, snapshot, strict_json, vggft
from processes import start, wait_until

from featurize.disk import forms

pytest.importorskip("uvicorn", reason="the extra 'sort' is not installed")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A workspace with heads, in which two drawings are in the folder of the other class."""
    base = tmp_path_factory.mktemp("review")
    data = drawings(base / "data", 16, "birds", "fruit")
    for name in sorted(path.name for path in (data / "birds").iterdir())[:2]:
        (data / "birds" / name).rename(data / "fruit" / name)
    for words in (("featurize", data), ("head", "--suspects", "--head", "logistic-max", "--epochs", "3", "--cv", "3")):
        done = vggft(*words, "-w", base / "work")
        assert done.returncode in (0, 3), done.stderr
    return base


def ask(address, path, body=None):
    origin, token = address.split("/#")
    headers = {"X-Vggft-Token": token, "Origin": origin, "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{origin}/api/{path}", data, headers)) as answer:
        return json.load(answer)


def test_corrections_survive_a_kill_are_applied_and_undone(base):
    data, work = base / "data", base / "work"
    before = snapshot(data)
    process = start("sort", "--review", "-w", work, "--no-open")
    wait_until(lambda: "page: " in process.written()[0], process)
    address = process.written()[0].split()[1]
    state = ask(address, "state?window=w")
    assert [one["name"] for one in state["classes"]] == ["birds", "fruit"]
    assert (state["review"], state["hows"], state["folder"]) == (True, ["move"], str(data))
    wanted = {"window": "w", "mode": "order", "label": "", "count": 50, "have": []}
    first, second, *_ = ask(address, "next", wanted)["pictures"]
    assert first["suggested"] != first["label"] == first["name"].split("/")[0]
    assert first["probability"] >= second["probability"] > 0.5
    assert "label issue" in first["why"] or "misclassified by" in first["why"]
    labels = {first["id"]: first["suggested"], second["id"]: second["label"]}  # corrected, and kept
    presses = [
        {"window": "w", "number": n, "kind": "decide", "choices": [{"id": number, "label": label}]}
        for n, (number, label) in enumerate(labels.items(), 1)
    ]
    ask(address, "presses", {"presses": presses})
    process.kill()
    process.communicate()
    rows = forms.parse_csv((work / "report" / "review.csv").read_bytes())
    assert [(row["file"], row["label"]) for row in rows] == [
        (first["name"], first["suggested"]),
        (second["name"], second["label"]),
    ]
    assert snapshot(data) == before
    assert "corrected pictures are moved" in refused("sort", "--review", "--apply", "--how", "copy", "-w", work)
    done = vggft("sort", "--review", "--apply", "-w", work, "--json")
    assert done.returncode == 0, done.stderr
    into = strict_json(done.stdout)["into"]
    assert (into["how"], into["put"]) == ("move", {first["suggested"]: 1})
    name = first["name"].split("/")[1]
    assert (data / first["suggested"] / name).read_bytes() == before[first["name"]]
    assert not (data / first["name"]).exists()
    assert (data / second["name"]).exists()
    assert vggft("undo", into["list"]).returncode == 0
    after = snapshot(data)
    assert {path: after[path] for path in before} == before


def test_without_heads_it_says_what_to_run(base, tmp_path):
    drawings(tmp_path / "data", 4, "birds", "fruit")
    assert vggft("featurize", tmp_path / "data", "-w", tmp_path / "work").returncode == 0
    assert "vggft head" in refused("sort", "--review", "-w", tmp_path / "work", "--no-open")
    assert "Run first: vggft featurize" in refused("sort", "--review", "-w", tmp_path / "none")
    assert not (tmp_path / "none").exists()
