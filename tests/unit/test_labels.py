"""Tables of labels: columns by the names that people use, files found by path or name, and everything that is refused."""

import time

import pytest
from conftest import paint

from featurize.data.labels import read
from featurize.data.scan import Rules, scan
from featurize.errors import VggftError


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    for number in range(6):
        paint(folder / f"{number}.png", (number, 40, 90))
    return folder


def table(folder, *lines, name="labels.csv"):
    path = folder.parent / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def labels(labelled):
    return {s.path: s.label for s in labelled.samples}


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("file,label", {"file": "file", "label": "label"}),
        ("Id,Breed", {"file": "Id", "label": "Breed"}),
        ("image_id;label", {"file": "image_id", "label": "label"}),
        ("id_code\tdiagnosis", {"file": "id_code", "label": "diagnosis"}),
        ("Image,whatever it is", {"file": "Image", "label": "whatever it is"}),  # two columns: the other one
        ("fname,Class Name", {"file": "fname", "label": "Class Name"}),
        ("\ufefffilename,target", {"file": "filename", "label": "target"}),  # as spreadsheets write it
    ],
)
def test_columns_by_the_names_that_people_use(pictures, header, columns):
    delimiter = next(d for d in ",;\t" if d in header)
    found = read(table(pictures, header, *(delimiter.join((f"{i}.png", "ab"[i % 2])) for i in range(6))), pictures)
    assert found.columns == columns
    assert labels(found) == {f"{i}.png": "ab"[i % 2] for i in range(6)}
    assert not found.unlabelled and not found.repeated


def test_the_best_name_is_used_and_the_rest_is_left(pictures):
    lines = ["class id,filepaths,labels,data set,notes", "0,0.png,cat,train,x", "1,1.png,dog,valid,y"]
    found = read(table(pictures, *lines), pictures)
    assert found.columns == {"file": "filepaths", "label": "labels", "split": "data set"}
    assert [(s.label, s.split) for s in found.samples] == [("cat", "train"), ("dog", "validate")]
    assert found.unlabelled == ("2.png", "3.png", "4.png", "5.png")


@pytest.mark.parametrize(
    ("column", "values", "splits"),
    [
        ("split", ("train", "val", "Test"), ["train", "validate", "test"]),
        ("subset", ("training", "dev", "testing"), ["train", "validate", "test"]),
        ("is_valid", ("False", "True", "0"), ["train", "validate", "train"]),
        ("is_test", ("no", "1", ""), ["train", "test", "train"]),
        ("is_valid", ("0.0", "1.0", "f"), ["train", "validate", "train"]),
        ("is_train", ("1", "no", "y"), ["train", "test", "train"]),
        ("Usage", ("Training", "PublicTest", "PrivateTest"), ["train", "test", "test"]),
        ("dataset", ("ours", "theirs", "ours"), ["", "", ""]),  # not of splits
    ],
)
def test_splits(pictures, column, values, splits):
    found = read(table(pictures, f"file,label,{column}", *(f"{i}.png,a,{v}" for i, v in enumerate(values))), pictures)
    assert [s.split for s in found.samples] == splits


@pytest.mark.parametrize(
    ("columns", "rows", "splits"),
    [
        ("is_val,is_test", ["1,0", "0,1", "0,0"], ["validate", "test", "train"]),
        ("is_train,is_val,is_test", ["0,1,0", "0,0,1", "1,0,0"], ["validate", "test", "train"]),
        ("is_train,is_test", ["1,0", "0,1", "0,0"], ["train", "test", "validate"]),
        ("dataset,phase", ["ours,train", "theirs,val", "ours,test"], ["train", "validate", "test"]),
        ("split,is_valid", ["train,0", "val,1", "train,0"], ["train", "validate", "train"]),
    ],
)
def test_several_columns_of_splits(pictures, columns, rows, splits):
    found = read(
        table(pictures, f"file,label,{columns}", *(f"{i}.png,a,{row}" for i, row in enumerate(rows))), pictures
    )
    assert [s.split for s in found.samples] == splits


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        ("is_val,is_test", ["1,1"], "line 2: validate and test in columns is_val, is_test"),
        ("is_train,is_val,is_test", ["0,0,0"], "line 2: no split in columns"),
        ("split,is_test", ["train,0", "train,1"], "line 3: train in column 'split', but test in column 'is_test'"),
        ("is_valid", ["1", "perhaps"], r"line 3: 'perhaps' in column 'is_valid'. Expected yes or no"),
    ],
)
def test_columns_of_splits_that_contradict_each_other(pictures, columns, rows, message):
    path = table(pictures, f"file,label,{columns}", *(f"{i}.png,a,{row}" for i, row in enumerate(rows)))
    with pytest.raises(VggftError, match=message):
        read(path, pictures)


def test_groups_of_a_table(pictures):
    lines = ["file,label,patient_id", *(f"{i}.png,{'ab'[i % 2]},{'pq'[i < 3] if i else ''}" for i in range(6))]
    found = scan(pictures, rules=Rules(table=table(pictures, *lines)))
    assert [s.group for s in found.samples] == [found.samples[0].digest, "q", "q", "p", "p", "p"]
    found = scan(pictures, rules=Rules("(3)", table=table(pictures, *lines)))  # before the table's, where it matches
    assert [s.group for s in found.samples][1:] == ["q", "q", "3", "p", "p"]


@pytest.mark.parametrize(
    "name",
    [
        *("deep/in/cat.1.jpg", "./deep/in/cat.1.jpg", "deep/in/cat.1.JPG", "deep/in/cat.1", "deep\\in\\cat.1.jpg"),
        *("cat.1.jpg", "cat.1", "pictures/deep/in/cat.1", "/kaggle/input/pets/pictures/deep/in/cat.1.jpg"),
    ],
)
def test_files_are_found_by_path_or_name_with_or_without_suffix(pictures, name):
    paint(pictures / "deep" / "in" / "cat.1.jpg", (1, 2, 3))
    found = read(table(pictures, "file,label", f"{name},cat"), pictures)
    assert labels(found) == {"deep/in/cat.1.jpg": "cat"}


def test_paths_from_the_folder_of_the_table_and_absolute_ones(pictures):
    found = read(table(pictures, "file,label", "pictures/0.png,a", f"{pictures}/1.png,b"), pictures)
    assert labels(found) == {"0.png": "a", "1.png": "b"}


def test_names_that_only_files_can_have(pictures):
    names = ["a,b.png", 'quote".png', "=1+1.png", "two\nlines.png", "caf\u00e9.png", " spaced.png"]
    for number, name in enumerate(names):
        paint(pictures / name, (200, number, 1))
    quoted = ['"{}"'.format(name.replace('"', '""')) for name in names]
    quoted[2] = "'=1+1.png"  # as vggft writes it, so that no spreadsheet computes it
    quoted[4] = "cafe\u0301.png"  # as another system spells it
    quoted[5] = "spaced"
    with pytest.raises(VggftError, match="none of its 1 file is in"):
        read(table(pictures, "file,label", "spaced.png,a"), pictures)
    found = read(table(pictures, "file,label", *(f"{name},a" for name in quoted[:5])), pictures)
    assert set(labels(found)) == set(names[:5])


def test_a_table_among_the_pictures(pictures):
    path = table(pictures / "x", "file,label", "0.png,a", "1.png,b")
    (pictures / "notes.txt").write_text("x")
    notes = []
    found = read(path, pictures, notes.append)
    assert path.parent == pictures
    assert [note.name for note in notes] == ["notes.txt"]
    assert found.unlabelled == ("2.png", "3.png", "4.png", "5.png")


def test_what_is_missing_twice_or_without_a_label_is_named(pictures):
    lines = ["file,label", "0.png,a", "gone.png,b", "1.png,", "0.png,a", "../../etc/passwd,b", "2.png,b"]
    found = read(table(pictures, *lines), pictures)
    assert found.repeated == ("0.png",)
    assert found.unlabelled == ("1.png", "3.png", "4.png", "5.png")
    rejected = {s.path: s.reason for s in found.samples if s.status == "rejected"}
    assert rejected == dict.fromkeys(
        ("etc/passwd", "gone.png"), "labels.csv has a row for it, but there is no such file"
    )
    assert labels(found) == {"0.png": "a", "2.png": "b", "gone.png": "b", "etc/passwd": "b"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,label", "0.png,a", "0.png,b"], r"line 3: 0.png has another row, which says 'a'; this one says 'b'"),
        (["file,label,split", "0.png,a,train", "0,a,test"], r"line 3: 0 has another row, which says 'a', 'train'"),
        (["file,label,subset", "0.png,a,train", "1.png,a,"], r"line 3: '' in column 'subset'"),
        (["0.png,a", "1.png,b"], "no names of columns. Write file,label"),
        (["file,cat,dog", "0.png,1,0"], "no column for the labels .* write one column"),
        (["what,label,more", "0.png,a,x"], "no column for the files among what, label, more"),
        (["file,width,height", "0.png,1,2"], "no column for the labels among file, width, height"),
        ([], "the table is empty"),
        (["file,label"], "no rows"),
        (["file,label", ",a"], "line 2: no file in column 'file'"),
        (["file,label", "0.png,a,b"], "line 2: 3 cells, but the header has 2"),
        (["file,label,label", "0.png,a,b"], "two columns called 'label'"),
        (
            ["file,label,split", "0.png,a,train", "1.png,a,maybe"],
            r"line 3: 'maybe' in column 'split'. Expected train, validate",
        ),
        (["file,label", "x/0.png,a", "test/1.png,b"], r"none of its 2 files is in .*pictures \(the first: x/0.png\)"),
        (["file,label", "7.png,a"], r"none of its 1 file is in .*pictures \(the first: 7.png\)"),
        (["file,label", '"0.png,a'], "labels.csv, line 2"),
    ],
)
def test_refused_tables(pictures, lines, message):
    before = sorted(pictures.iterdir())
    with pytest.raises(VggftError, match=message):
        read(table(pictures, *lines), pictures)
    assert sorted(pictures.iterdir()) == before


def test_a_name_of_several_files(pictures):
    for folder in "ab":
        paint(pictures / folder / "same.png", (1, 2, ord(folder)))
    with pytest.raises(VggftError, match=r"line 2: same.png may be a/same.png or b/same.png"):
        read(table(pictures, "file,label", "same.png,x"), pictures)
    assert labels(read(table(pictures, "file,label", "b/same.png,x"), pictures)) == {"b/same.png": "x"}


def test_what_is_no_table(pictures):
    with pytest.raises(VggftError, match=r"--labels .*nothing.csv: No such file"):
        read(pictures.parent / "nothing.csv", pictures)
    with pytest.raises(VggftError, match="not a CSV file"):
        read(pictures / "0.png", pictures)
    utf16 = pictures.parent / "utf16.csv"
    utf16.write_text("file,label\n0.png,a\n", encoding="utf-16")
    with pytest.raises(VggftError, match="not a CSV file in UTF-8"):
        read(utf16, pictures)


@pytest.mark.parametrize(
    "text",
    [
        "file,label,x,x\n0.png,a,1,2\n1.png,b,,\n",  # a name twice that is not used
        "file,label,\n0.png,a,\n1.png,b,\n",
        "file,label\n0.png,a,,\n1.png,b\n",
        "sep=;\nfile;label\n0.png;a\n1.png;b\n",
        "\n\nfile,label\r\n0.png,a\r\n\r\n1.png,b\r\n",
        "file,label,note\n0.png,a,one\u2028line\n1.png,b,\n",
        'file,label,note\n0.png,a,"two\nlines"\n1.png,b,x\n',
        "id,name,label\nx,0.png,a\ny,1.png,b\n",  # the column that names files
        " file , label\n 0.png , a\n1.png,b \n",
    ],
)
def test_tables_as_programs_write_them(pictures, text):
    path = pictures.parent / "labels.csv"
    path.write_bytes(text.encode())
    assert labels(read(path, pictures)) == {"0.png": "a", "1.png": "b"}


def test_a_last_row_that_was_cut_off_is_no_label(pictures):
    path = pictures.parent / "labels.csv"
    path.write_text("file,label,step\n0.png,cat,1\n1.png,cat,2\n2.png,ca")
    with pytest.raises(VggftError, match="line 4: 2 cells, but the header has 3"):
        read(path, pictures)


def test_a_table_in_another_encoding(pictures):
    path = pictures.parent / "labels.csv"
    path.write_bytes("file,label\n0.png,caf\u00e9\n".encode("latin-1"))
    with pytest.raises(VggftError, match=r"line 2: not in UTF-8\. Save the table as CSV UTF-8"):
        read(path, pictures)


def test_the_folder_behind_a_link(pictures):
    link = pictures.parent / "link"
    link.symlink_to("pictures")
    assert labels(read(table(pictures, "file,label", "link/0.png,a", "pictures/1.png,b"), link)) == {
        "0.png": "a",
        "1.png": "b",
    }


def test_names_are_found_at_once_among_many(pictures):
    """As in CheXpert: one name in thousands of folders. Looking at each of them for each row would take minutes."""
    for number in range(1500):
        (pictures / "train" / f"patient{number:05}").mkdir(parents=True)
        (pictures / "train" / f"patient{number:05}" / "view1.jpg").write_bytes(b"x")
    rows = [f"pictures/train/patient{number:05}/view1.jpg,{number % 2}" for number in range(1500)]
    began = time.process_time()
    assert len(read(table(pictures, "Path,label", *rows), pictures).samples) == 1500
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0.png,a", "1.png,a"], r"labels.csv: only one class \('a'\). Expected two or more labels"),
        (["0.png,", "1.png,"], "labels.csv: no labels"),
        (["0.png,a", "1.png,a", "2.png,b"], r"class 'b' has only one image \(2.png\).* leave out its rows"),
        (["0.png,a", "1.png,a", "gone.png,b"], r"class 'b' has no images \(gone.png: labels.csv has a row"),
    ],
)
def test_tables_with_too_few_labels(pictures, lines, message):
    with pytest.raises(VggftError, match=message):
        scan(pictures, rules=Rules(table=table(pictures, "file,label", *lines)))
