"""Grid files: which definitions of heads are accepted, and the errors for the others."""

import pytest

from featurize.errors import VggftError
from heads import grid
from heads.specs import DenseSpec, LogisticSpec


def read(tmp_path, text, taken=()):
    path = tmp_path / "grid.toml"
    path.write_text(text, encoding="utf-8")
    return grid.read(path, taken)


def test_heads_and_combinations(tmp_path):
    text = """
        [wide]
        pooling = "max"
        units = [0, 512]
        learning_rate = [1e-3, 3e-4]
        l2 = 0.01
        standardise = false

        [base]
        kind = "logistic"
        pooling = ["avg", "flatten"]

        [deep]
        pooling = "avgmax"
        units = 64
        learning_rate = 1e-3
        dropout = 0.25
    """
    assert read(tmp_path, text) == [
        DenseSpec("wide-units0-learning_rate0.001", "max", 0, 1e-3, l2=0.01, standardise=False),
        DenseSpec("wide-units0-learning_rate0.0003", "max", 0, 3e-4, l2=0.01, standardise=False),
        DenseSpec("wide-units512-learning_rate0.001", "max", 512, 1e-3, l2=0.01, standardise=False),
        DenseSpec("wide-units512-learning_rate0.0003", "max", 512, 3e-4, l2=0.01, standardise=False),
        LogisticSpec("base-poolingavg", "avg"),
        LogisticSpec("base-poolingflatten", "flatten"),
        DenseSpec("deep", "avgmax", 64, 1e-3, dropout=0.25),
    ]


GOOD = 'pooling = "avg"\nunits = 8\nlearning_rate = 0.001\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"[a]\n{GOOD}droput = 0.5\n", "[a]: unknown key 'droput'. Did you mean 'dropout'?"),
        (
            f'[b]\n{GOOD}\n[a]\n{GOOD}"colour" = "red"\n',
            "[a]: unknown key 'colour'. Expected kind, pooling, units, learning_rate",
        ),
        (
            '[a]\npooling = "mean"\nunits = 8\nlearning_rate = 1e-3\n',
            "[a]: pooling = 'mean'; expected flatten, avg, max or avgmax.",
        ),
        (
            '[a]\npooling = "avg"\nunits = [8, -1]\nlearning_rate = 1e-3\n',
            "[a]: units = -1; expected a whole number, 0 to 8192.",
        ),
        ('[a]\npooling = "avg"\nunits = true\nlearning_rate = 1e-3\n', "[a]: units = True; expected a whole number"),
        ('[a]\npooling = "avg"\nunits = []\nlearning_rate = 1e-3\n', "[a]: units = []; expected a whole number"),
        ('[a]\npooling = "avg"\nunits = 8\nlearning_rate = 0\n', "[a]: learning_rate = 0; expected a number, above 0."),
        ('[a]\npooling = "avg"\nunits = 8\nlearning_rate = inf\n', "[a]: learning_rate = inf; expected a number"),
        (f"[a]\n{GOOD}dropout = 1.0\n", "[a]: dropout = 1.0; expected a number, 0 or more and below 1."),
        (f"[a]\n{GOOD}l2 = 1{'0' * 400}\n", "expected a number, 0 or more."),
        (f"[a]\n{GOOD}l2 = 1{'0' * 5000}\n", "a number has too many digits. Expected numbers of at most 64 bits."),
        (f"[a]\n{GOOD}l2 = nan\n", "[a]: l2 = nan; expected a number, 0 or more."),
        (f'[a]\n{GOOD}l2 = "small"\n', "[a]: l2 = 'small'; expected a number"),
        (f'[a]\n{GOOD}kind = "tree"\n', "[a]: kind = 'tree'; expected dense or logistic."),
        (f'[a]\n{GOOD}kind = ["dense"]\n', "[a]: kind = ['dense']; expected dense or logistic."),
        (f"[a]\n{GOOD}standardise = 1\n", "[a]: standardise = 1; expected true or false."),
        ('[a]\npooling = "avg"\nunits = 8\n', "[a]: 'learning_rate' is missing; expected a number, above 0."),
        ('[a]\nkind = "logistic"\npooling = "avg"\nunits = 8\n', "[a]: unknown key 'units'. Expected kind, pooling."),
        (
            '[a]\npooling = "avg"\nunits = 0\nlearning_rate = 1e-3\ndropout = 0.5\n',
            "[a]: units = 0 is a linear head, which has no dropout. Set one of them.",
        ),
        ("epochs = 3\n", "[epochs]: not a table. Expected [name] tables, in single brackets."),
        (f"[[a]]\n{GOOD}", "[a]: not a table. Expected [name] tables, in single brackets."),
        (f'["a b"]\n{GOOD}', "[a b]: 'a b' is not a valid head name. Expected letters"),
        (f'["../x"]\n{GOOD}', "'../x' is not a valid head name"),
        (f'["leaderboard.csv"]\n{GOOD}', "no .csv"),
        (f"[taken]\n{GOOD}", "[taken]: the name 'taken' is already in use"),
        (f"[a]\n{GOOD}[a.x]\n", "[a]: unknown key 'x'"),
        ('x = {pooling = "avg", unitz = 8, learning_rate = 1e-3}\n', "[x]: unknown key 'unitz'. Did you mean 'units'?"),
        ('[a]\npooling = "avg\n', "not valid TOML: Illegal character '\\n' (at line 2"),
        ("[a]\nunits = 8\nunits = 9\n", "not valid TOML: Cannot overwrite a value (at line 3"),
        (f"[a]\n{GOOD}l2 = {[0] * 99}\ndropout = {[0.1] * 99}\n", "[a]: 9801 heads; expected 1000 at most."),
        ("", "grid.toml: 0 heads; expected 1 to 1000"),
    ],
)
def test_slips(tmp_path, text, message):
    with pytest.raises(VggftError) as caught:
        read(tmp_path, text, ["taken"])
    assert str(caught.value).startswith(f"--grid {tmp_path / 'grid.toml'}")
    assert message in str(caught.value)


def test_names_are_made_of_what_the_file_says(tmp_path):
    text = '[a]\npooling = "avg"\nunits = 8\nlearning_rate = 1\nl2 = [0, 0.5]\n'
    assert read(tmp_path, text) == [DenseSpec("a-l20", "avg", 8, 1.0), DenseSpec("a-l20.5", "avg", 8, 1.0, l2=0.5)]


def test_of_a_family_the_linear_head_has_no_dropout(tmp_path):
    text = '\ufeff[a]\npooling = "avg"\nunits = [0, 8]\nlearning_rate = 0.001\ndropout = 0.5\n'  # and a mark of Windows
    assert [spec.dropout for spec in read(tmp_path, text)] == [0.0, 0.5]


def test_two_tables_that_make_one_name(tmp_path):
    with pytest.raises(VggftError, match=r"\[a-units8\]: the name 'a-units8' is already in use"):
        read(tmp_path, f'[a]\npooling = "avg"\nunits = [8]\nlearning_rate = 1e-3\n[a-units8]\n{GOOD}')


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(VggftError, match="cannot read the file"):
        grid.read(tmp_path / "none.toml", [])
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(VggftError, match="cannot read the file"):
        grid.read(tmp_path / "binary.toml", [])
