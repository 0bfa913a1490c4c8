"""The questions that compare contenders: what their tables say of runs whose seconds and scores are known."""

from dataclasses import dataclass, field

import pytest
from conftest import make_classes

from benchmarks.contest import Contest, Run, Score
from benchmarks.questions import changes, classic, epoch, experiment, population, race

FAILED = None


@dataclass
class Played(Contest):
    """A contest whose runs are written down: contender → run, or (contender, seconds of the task) → run."""

    played: dict = field(default_factory=dict)

    def run(self, contender, task):
        run = self.played.get((contender, task.seconds), self.played.get(contender, FAILED))
        if run is FAILED:
            self.missing[contender] = "failed: as written"
        return run


@pytest.fixture
def contest(tmp_path):
    for folder in ("data/train", "data/validate", "unseen"):
        make_classes(tmp_path / folder, cat=3, dog=3)

    def make(minutes=(10,), **played):
        return Played(
            tmp_path / "data", tmp_path / "unseen", tmp_path, tmp_path / "w", 1, minutes=minutes, played=played
        )

    return make


def model(name, clock, validation, unseen):
    return Score(name, clock, {"log_loss": validation, "accuracy": 0.5}, {"log_loss": unseen, "accuracy": 1 - unseen})


def test_epochs_from_pixels_that_were_not_measured_take_as_long_as_the_second(contest):
    answer = classic.ask(contest(vggft=Run(10.0), keras_npy=Run(20.0), original=Run(45.0, [30, 5]))).text
    assert "| vggft | 10.0 | 1.00 |\n| keras_npy | 20.0 | 2.00 |\n| original | 285.0 | 28.50 |" in answer  # 45 + 48 · 5


def test_an_epoch_is_the_fastest_after_the_first(contest):
    answer = epoch.ask(contest(vggft=Run(9, [4, 3, 2]), original_corrected=Run(90, [1, 20, 30], memory=10**9))).text
    assert "| vggft | 2.0 | 1.00 | 4.0 | 0.0 GB | block5 " in answer
    assert "| original_corrected | 20.0 | 10.00 | 1.0 | 1.0 GB | block5 " in answer


def test_all_heads_and_the_best_of_them(contest):
    def trained(seconds, heads, loss, **more):
        event = {"event": "population", "heads": heads, **more}
        return Run(seconds, scores=[model("best", seconds, 0.3, loss)], events=[event])

    runs = {"vggft": trained(8.0, 16, 0.25), "keras_npy": trained(40.0, 16, 0.5)}
    answer = population.ask(contest(**runs, linear_grid=trained(600.0, 52, 0.75, steps=70))).text
    assert "| vggft | 8.0 | 1.00 | 16 | 0.250 | 0.750 |" in answer
    assert "| linear_grid | 600.0 | 75.00 | 52 | 0.750 | 0.250 |" in answer
    assert "10 minutes, enough for 70 of the 12,500" in answer


def test_the_whole_experiment(contest):
    runs = {"vggft": Run(50.0, scores=[model("last", 50, 0.1, 0.2)], memory=2 * 10**9)}
    answer = experiment.ask(contest(**runs, original=Run(200.0, scores=[model("last", 200, 0.9, 0.8)])))
    assert answer.title == "The original experiment, 20 epochs; scores on 6 unseen images"
    assert "| vggft | 50.0 | 1.00 | 0.200 | 0.800 | 2.0 GB |\n| original | 200.0 | 4.00 | 0.800 |" in answer.text


def test_validation_selects_the_model_of_a_race_and_the_reference_sets_the_goal(contest):
    reference = [model("epoch 1", 200, 0.5, 0.4), model("epoch 2", 500, 0.3, 0.45)]
    runs = {
        "vggft": Run(120, scores=[model("first head", 50, 0.4, 0.3), model("epoch 1", 100, 0.25, 0.2)]),
        "original_corrected": Run(600, scores=reference),
        "keras_npy": Run(60, scores=[model("regression", 60, 0.6, 0.5)]),
    }
    made = contest((5, 10), **runs)
    made.played["fastai_fine_tune", 600.0] = Run(
        600, scores=[model("last", 590, 0.2, 0.1)]
    )  # and fails within 5 minutes
    answer = race.ask(made)
    assert [line.split(" | ")[0] for line in answer.text.splitlines()[2:6]] == [
        "| fastai_fine_tune",
        "| vggft",
        "| original_corrected",
        "| keras_npy",
    ]
    assert "| fastai_fine_tune | – | 0.100, 0.900 | last |" in answer.text
    assert "| vggft | 0.200, 0.800 | 0.200, 0.800 | epoch 1 |" in answer.text
    assert "| original_corrected | 0.400, 0.600 | 0.450, 0.550 | epoch 2 |" in answer.text
    assert "| vggft | 100 | 50 | 50 |" in answer.text  # of 0.3 on validation images, and 0.45 and 0.55 on unseen ones
    assert "| keras_npy | not reached | not reached | not reached |" in answer.text
    assert "validation log-loss: 5.0; unseen log-loss: 4.0; unseen accuracy: 4.0." in answer.text
    assert "fastai_fine_tune" not in answer.numbers["5 min"]


def test_a_contender_that_fails_in_its_second_run_leaves_the_others_in_the_table(contest, monkeypatch):
    made = contest(vggft=Run(10.0), keras_npy=Run(5.0))
    ran = []

    def run(contender, task):
        made.work(contender).mkdir(parents=True, exist_ok=True)
        ran.append(contender)
        if ran.count(contender) > 1 and contender == "keras_npy":
            made.missing[contender] = "failed: as written"
            return FAILED
        return made.played[contender]

    monkeypatch.setattr(Played, "run", lambda self, contender, task: run(contender, task))
    assert "| vggft | 10.0 | 10.0 | 1.00 | 10.0 | 1.00 | 10.0 | 1.00 |" in changes.ask(made).text
