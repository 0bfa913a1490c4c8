"""`vggft demo`: one run in its workspace, however often it is stopped and started."""

import pytest
from conftest import drawings, snapshot
from tiny import TINY

from finetune import store
from heads.specs import DEFAULTS
from vggft.comparison import costs
from vggft.steps import demo, head, tuning
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered", "untraced")
def test_again_it_goes_on_and_in_the_end_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "PICTURES", drawings(tmp_path / "data", 12, "bugs", "flowers"))
    monkeypatch.setattr(demo, "HEAD_EPOCHS", 1)
    monkeypatch.setattr(head, "DEFAULTS", DEFAULTS[:4])  # three regressions and a dense head
    monkeypatch.setattr(demo, "TUNE_EPOCHS", 1)
    monkeypatch.setattr(costs, "BATCHES", (1, 2))
    workspace, ui = Workspace(tmp_path / "work", TINY), Ui(quiet=False)

    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tuning, "_predict_validation", interrupted)
        demo.run(workspace, ui)
    (begun,) = store.unfinished(workspace.finetune)
    assert begun.folder.name == "demo"
    assert "$ vggft finetune --unfreeze block3 --epochs 1 --name demo" in capsys.readouterr().out

    first = demo.run(workspace, ui)
    assert (first["finetune"]["name"], first["finetune"]["resumed"]) == ("demo", True)
    assert "$ vggft finetune --resume --name demo" in capsys.readouterr().out
    trained = snapshot(workspace.finetune)
    again = demo.run(workspace, ui)
    assert again["featurize"]["computed"] == 0
    assert again["finetune"] == {**first["finetune"], "resumed": False}
    assert snapshot(workspace.finetune) == trained
    assert [path.name for path in workspace.finetune.iterdir()] == ["demo"]

    min((tmp_path / "data" / "bugs").iterdir()).unlink()
    other = demo.run(workspace, ui)  # pictures have changed, as in another version: the earlier run is stale
    assert other["finetune"]["name"] == "demo-2"
