"""Terminal output shows file and class names unchanged."""

import pytest

from vggft.ui.console import Ui

NAME = "data/:dog: [red]fruit[/red]/a.png"


@pytest.mark.parametrize("quiet", [False, True])
def test_names_are_shown_as_they_are(quiet, capsys):
    ui = Ui(quiet=quiet)
    for speak in (ui.say, ui.warn, ui.error, ui.print, ui.put):
        speak(NAME)
    ui.table("Names", ("name", "number"), [(NAME, NAME)])
    out, err = capsys.readouterr()
    assert err.splitlines() == ([] if quiet else [NAME]) + [f"warning: {NAME}", f"error: {NAME}"]
    assert out.splitlines()[:2] == ([NAME] if quiet else [NAME, NAME])
    assert out.count(NAME) == (1 if quiet else 4)
