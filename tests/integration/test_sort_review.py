"""`vggft sort --review`: doubtful labels of a workspace on the page, a kill, applying the corrections, and undoing them."""

import json
import urllib.request

import pytest
from conftest import drawings, refused, snapshot, strict_json, vggft
from processes import start, wait_until

from featurize.disk import forms
from vggft.labelling.decisions import COLUMNS

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


@pytest.mark.slow
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


def test_labels_from_a_table_are_corrected_in_a_copy(tmp_path):
    data = drawings(tmp_path / "data", 4, "birds", "fruit")
    files = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.png"))
    rows = [(file, file.split("/")[0], f"g{i}") for i, file in enumerate(files)]
    forms.write_csv(tmp_path / "table.csv", ("image", "class", "group"), rows)
    done = vggft("featurize", data, "--labels", tmp_path / "table.csv", "-w", tmp_path / "work")
    assert done.returncode == 0, done.stderr
    decided = [
        (file, label, "", "", step, (data / file).stat().st_size)
        for step, (file, label) in enumerate(zip(files, ("fruit", "birds", "", "fruit"), strict=False), 1)
    ]
    decided[3] = (*decided[3][:5], 9)  # another file now
    (tmp_path / "work" / "report").mkdir()
    forms.write_csv(tmp_path / "work" / "report" / "review.csv", COLUMNS, decided)
    before = snapshot(data)
    table = (tmp_path / "table.csv").read_bytes()
    done = vggft("sort", "--review", "--apply", "-w", tmp_path / "work", "--json")
    found = strict_json(done.stdout)
    assert (done.returncode, found["corrected"]) == (0, 1)
    assert forms.parse_csv((tmp_path / "work" / "report" / "labels.csv").read_bytes()) == [
        {"file": file, "label": "fruit" if file == files[0] else label, "group": group} for file, label, group in rows
    ]
    assert (snapshot(data), (tmp_path / "table.csv").read_bytes()) == (before, table)
    again = vggft("featurize", data, "--labels", found["labels"], "-w", tmp_path / "work", "--json")
    assert strict_json(again.stdout)["images"] == 8


def test_without_heads_it_says_what_to_run(base, tmp_path):
    drawings(tmp_path / "data", 4, "birds", "fruit")
    assert vggft("featurize", tmp_path / "data", "-w", tmp_path / "work").returncode == 0
    assert "vggft head" in refused("sort", "--review", "-w", tmp_path / "work", "--no-open")
    assert "Run first: vggft featurize" in refused("sort", "--review", "-w", tmp_path / "none")
    assert not (tmp_path / "none").exists()
