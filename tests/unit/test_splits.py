"""Splits: shares, stability, and copies across splits."""

import hashlib
from collections import Counter
from dataclasses import replace

import pytest

from featurize.data.assigned import read, remember, table
from featurize.data.dataset import Dataset, Sample
from featurize.data.splits import Shares, assign, conflicts, reserve_test, set_aside_duplicates
from featurize.errors import VggftError


def samples(label: str, numbers, **fields) -> list[Sample]:
    names = [f"{label}{i}" for i in numbers]
    return [Sample(f"{label}/{name}.png", label, group=name, digest=name, **fields) for name in names]


def counts(assigned) -> dict:
    return dict(Counter((s.label, s.split) for s in assigned))


def test_shares_of_each_class():
    assigned = assign([*samples("a", range(100)), *samples("b", range(10))], Shares(0.2, 0.1, seed=3))
    assert counts(assigned) == {
        **{("a", "train"): 70, ("a", "validate"): 20, ("a", "test"): 10},
        **{("b", "train"): 7, ("b", "validate"): 2, ("b", "test"): 1},
    }


def test_the_seed_decides():
    def held(seed):
        return {s.path for s in assign(samples("a", range(100)), Shares(seed=seed)) if s.split == "validate"}

    assert held(0) == held(0)
    assert held(0) != held(1)


def test_nobody_moves_when_images_come_and_go():
    first = assign([*samples("a", range(50)), *samples("b", range(20))], Shares())
    before = {s.path: s.split for s in first}
    more = [*samples("a", range(10, 120)), *samples("b", range(60)), *samples("c", range(5))]
    second = assign(more, Shares(), before=remember([], first))
    assert all(before[s.path] == s.split for s in second if s.path in before)
    found = counts(second)
    assert found[("a", "validate")] == 22
    assert found[("b", "validate")] == 12
    assert found[("c", "validate")] == 1


def test_a_renamed_or_edited_file_stays_where_it_was():
    first = assign(samples("a", range(20)), Shares())
    held_back = next(s for s in first if s.split == "validate")
    renamed = [Sample("a/new name.png", "a", group=s.group, digest=s.digest) if s is held_back else s for s in first]
    edited = [Sample(s.path, "a", group="other", digest="other") if s is held_back else s for s in first]
    for changed in (renamed, edited):
        fresh = [Sample(s.path, s.label, group=s.group, digest=s.digest) for s in changed]
        second = assign(fresh, Shares(), before=remember([], first))
        place = changed.index(next(s for s in changed if s not in first))
        assert second[place].split == "validate"


def test_what_was_gone_for_a_while_comes_back_to_its_split(tmp_path):
    first = assign(samples("a", range(20)), Shares())
    known = remember([], first)
    gone = [s for s in first if s.split == "validate"][:2]
    left = [Sample(s.path, s.label, group=s.group, digest=s.digest) for s in first if s not in gone]
    second = assign(left, Shares(), before=known)
    known = remember(known, second)
    (tmp_path / "splits.csv").write_bytes(table(known))
    unreadable = [Sample(s.path, s.label, status="rejected", reason="x") if s in gone else s for s in first]
    assert remember(known, unreadable) == known
    again = assign(samples("a", range(25)), Shares(), before=read(tmp_path / "splits.csv"))
    assert {s.path: s.split for s in first}.items() <= {s.path: s.split for s in again}.items()
    assert read(tmp_path / "nothing.csv") == []
    for damage in ("", "path,other\r\nx,y\r\n", (tmp_path / "splits.csv").read_text()[:-8]):
        (tmp_path / "splits.csv").write_text(damage, newline="")
        with pytest.raises(VggftError, match="damaged"):
            read(tmp_path / "splits.csv")


def test_a_test_split_is_reserved_from_training_only():
    first = assign([*samples("a", range(50)), *samples("b", range(2))], Shares())
    before = remember([], first)
    after = reserve_test(before, first, Shares(test=0.2))
    changed = {(old.split, new.split) for old, new in zip(before, after, strict=True) if old != new}
    assert changed == {("train", "test")}
    assert counts(after) == {
        **{("a", "train"): 30, ("a", "validate"): 10, ("a", "test"): 10},
        **{("b", "train"): 1, ("b", "validate"): 1},  # its only training image is not taken
    }


def test_only_images_that_are_here_are_reserved():
    before = remember([], assign(samples("a", range(50)), Shares()))
    here = {f"a{i}" for i in range(25)}
    after = reserve_test(before, samples("a", range(25)), Shares(test=0.2))
    reserved = {entry.digest for entry in after if entry.split == "test"}
    assert len(reserved) == 5
    assert reserved <= here


def test_earlier_names_of_a_class_do_not_count():
    """A class is renamed, and renamed back: each image is in splits.csv under two labels."""
    assigned = []
    for name in ("cat", "cats", "cat"):
        renamed = [replace(s, path=f"{name}/{s.digest}.png", label=name) for s in samples("c", range(16))]
        assigned = remember(assigned, assign([*renamed, *samples("dog", range(16))], Shares(0.25), (), assigned))
    assert len(assigned) == 48
    now = [*renamed, *samples("dog", range(16))]
    after = assign(now, Shares(0.25, 0.25), (), reserve_test(assigned, now, Shares(0.25, 0.25)))
    assert counts(after) == {
        (label, split): number
        for label in ("cat", "dog")
        for split, number in (("train", 8), ("validate", 4), ("test", 4))
    }


def test_an_image_that_changed_is_reserved_under_its_new_bytes():
    before = remember([], assign(samples("a", range(20)), Shares()))
    edited = [replace(s, digest=f"new {s.digest}", group=f"new {s.group}") for s in samples("a", range(20))]
    after = assign(edited, Shares(0.2, 0.2), (), reserve_test(before, edited, Shares(0.2, 0.2)))
    assert counts(after) == {("a", "train"): 12, ("a", "validate"): 4, ("a", "test"): 4}


def test_folders_that_contradict_a_drawn_split_are_refused():
    drawn = assign(samples("a", range(50), split="train"), Shares(), {"train"})
    later = [*samples("a", range(50), split="train"), *samples("a", range(50, 60), split="validate")]
    with pytest.raises(VggftError, match="is in the train split now, but was assigned to validate earlier"):
        assign(later, Shares(), {"train", "validate"}, remember([], drawn))
    moved = [
        Sample(f"train/{s.path}", s.label, "train", s.group, s.digest) for s in assign(samples("a", range(9)), Shares())
    ]
    with pytest.raises(VggftError, match="was assigned to validate"):  # other paths, the same bytes
        assign(moved, Shares(), {"train", "validate"}, remember([], assign(samples("a", range(9)), Shares())))
    given = [Sample(f"{s.split}/{s.path}", s.label, s.split, s.group, s.digest) for s in later]
    swapped = [Sample(s.path, s.label, "validate", s.group, s.digest) if s is given[0] else s for s in given]
    for folders in (given, swapped):  # what folders said before, their owner may change
        assert assign(folders, Shares(), {"train", "validate"}, remember([], given)) == folders


def test_renamed_frames_stay_though_their_group_has_another_name():
    frames = [Sample(f"a/v{i // 5}_{i}.png", "a", group=f"v{i // 5}", digest=str(i)) for i in range(50)]
    first = assign(frames, Shares())
    renamed = [Sample(f"a/w{i // 5}_{i}.png", "a", group=f"w{i // 5}", digest=str(i)) for i in range(50)]
    second = assign(renamed, Shares(seed=9), before=remember([], first))
    assert [s.split for s in second] == [s.split for s in first]


def test_an_edited_image_does_not_erase_the_memory_of_its_old_bytes():
    first = assign(samples("a", range(20)), Shares())
    held_back = next(s for s in first if s.split == "validate")
    edited = [Sample(s.path, "a", group="new", digest="new") if s is held_back else s for s in first]
    fresh = [Sample(s.path, s.label, group=s.group, digest=s.digest) for s in edited]
    known = remember(remember([], first), assign(fresh, Shares(), before=remember([], first)))
    back = Sample("a/zzz.png", "a", group=held_back.group, digest=held_back.digest)
    third = assign([*fresh, back], Shares(seed=5), before=known)
    assert third[-1].split == "validate"


def test_renamed_files_stay_whatever_the_hash_would_say():
    first = assign(samples("a", range(40)), Shares())
    renamed = [Sample(f"a/other {i}.png", "a", group=s.group, digest=s.digest) for i, s in enumerate(first)]
    second = assign(renamed, Shares(seed=9), before=remember([], first))
    assert [s.split for s in second] == [s.split for s in first]


def test_no_split_parts_a_group():
    frames = [Sample(f"a/{i}.png", "a", group=f"video{i // 10}", digest=str(i)) for i in range(100)]
    assigned = assign(frames, Shares())
    assert all(len({s.split for s in assigned if s.group == group}) == 1 for group in {s.group for s in frames})
    assert counts(assigned) == {("a", "train"): 80, ("a", "validate"): 20}


def test_two_groups_are_learnt_and_judged_whatever_their_size():
    frames = [Sample(f"a/{i}.png", "a", group="big" if i < 9 else "other", digest=str(i)) for i in range(18)]
    assert set(counts(assign(frames, Shares()))) == {("a", "train"), ("a", "validate")}
    assert counts(assign(samples("a", range(2)), Shares())) == {("a", "train"): 1, ("a", "validate"): 1}


def test_one_group_cannot_be_both():
    with pytest.raises(VggftError, match="'a' has only one group"):
        assign([Sample(f"a/{i}.png", "a", group="same", digest="same") for i in range(5)], Shares())


def test_folders_decide_and_what_they_lack_is_drawn_from_training():
    given = [*samples("a", range(50), split="train"), *samples("a", range(50, 60), split="validate")]
    assert assign(given, Shares(), {"train", "validate"}) == given
    tested = assign(given, Shares(test=0.2), {"train", "validate"})
    assert counts(tested) == {("a", "train"): 40, ("a", "test"): 10, ("a", "validate"): 10}
    only_train = assign(samples("a", range(50), split="train"), Shares(), {"train"})
    assert counts(only_train) == {("a", "train"): 40, ("a", "validate"): 10}


def test_copies_on_the_judging_side_are_set_aside():
    found = set_aside_duplicates(
        [
            Sample("a/1", "a", "train", digest="x"),
            Sample("b/1", "b", "validate", digest="x"),
            Sample("a/2", "a", "validate", digest="y"),
            Sample("b/2", "b", "validate", digest="y"),
            Sample("a/3", "a", "validate", digest="z"),
            Sample("a/4", "a", "validate", digest="z"),
            Sample("a/5", "a", "train", digest="u"),
            Sample("b/5", "b", "train", digest="u"),
        ]
    )
    assert [s.status for s in found] == ["ok", "duplicate", "duplicate", "duplicate", "ok", "ok", "ok", "ok"]
    assert found[1].reason == "same bytes as a/1 (class 'a', train)"
    assert [[s.path for s in own] for own in conflicts(found)] == [["a/1", "b/1"], ["a/2", "b/2"], ["a/5", "b/5"]]


@pytest.mark.parametrize("shares", [(0, 0), (1, 0), (-0.1, 0), (0.5, 0.5), (0.2, 1.2)])
def test_impossible_shares(shares):
    with pytest.raises(VggftError, match=r"[Ee]xpected a"):
        Shares(*shares)


def test_identity_ignores_names_and_order_but_not_content(tmp_path):
    rows = assign(samples("a", range(10)), Shares())
    rows = [replace(s, digest=hashlib.sha256(s.digest.encode()).hexdigest()) for s in rows]
    made = Dataset(tmp_path, ("a",), tuple(rows)).identity
    renamed = tuple(Sample(f"elsewhere/{i}", s.label, s.split, s.group, s.digest) for i, s in enumerate(reversed(rows)))
    assert Dataset(tmp_path, ("a",), renamed).identity == made
    assert Dataset(tmp_path, ("a",), tuple(rows[1:])).identity != made
    assert Dataset(tmp_path, ("a", "b"), tuple(rows)).identity != made
    for change in ({"split": "test"}, {"label": "b"}, {"digest": "0" * 64}):
        assert Dataset(tmp_path, ("a",), (replace(rows[0], **change), *rows[1:])).identity != made
