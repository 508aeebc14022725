"""Splits are disjoint by person; who lends a face stays with the lender where that can be."""

import pandas as pd
import pytest

from fwstudy.preprocess.splits import assign_splits, clusters, lending_groups, split_identities

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


def test_lending_groups_follow_chains():
    groups = lending_groups([("b", "a"), ("c", "b"), ("d", "d"), ("e", "d")])
    assert groups == {"a": "a", "b": "a", "c": "a", "d": "d", "e": "d"}


def test_split_keeps_lenders_together_and_shares():
    pairs = [(f"{i:03d}", f"{i ^ 1:03d}") for i in range(40)]
    groups = lending_groups(pairs)
    split = split_identities(groups, SHARES, seed=3)
    assert all(split[a] == split[b] for a, b in pairs)
    counts = pd.Series(split).value_counts()
    assert counts.to_dict() == {"train": 24, "validation": 8, "test": 8}
    shuffled = lending_groups(pairs[::-1])
    assert split == split_identities(shuffled, SHARES, seed=3)
    assert split != split_identities(groups, SHARES, seed=4)


def test_nobody_is_tested_on_whom_settings_were_chosen():
    """The study's split of 160 people, and that of its first 120, by which settings were chosen."""

    def split(people, shares, seed):
        pairs = [(f"{i:03d}", f"{i ^ 1:03d}") for i in range(people)]
        return split_identities(lending_groups(pairs), shares, seed)

    former = split(120, SHARES, seed=0)
    now = split(160, {"train": 0.5, "validation": 0.15, "test": 0.35}, seed=35)
    assert pd.Series(now).value_counts().to_dict() == {"train": 80, "test": 56, "validation": 24}
    chose = {name for name, part in former.items() if part == "validation"}
    assert len(chose) == 24 and not any(now[name] == "test" for name in chose)


def test_split_of_one_group_is_refused():
    groups = lending_groups([("a", "b"), ("b", "c"), ("c", "a")])
    with pytest.raises(ValueError, match="3 identities form 1 group"):
        split_identities(groups, SHARES, seed=0)


def test_where_all_lend_to_all_people_are_resampled_one_by_one():
    groups = {"a": "a", "b": "a", "c": "a", "d": "d", "e": "e", "f": "e"}
    splits = dict.fromkeys("abcd", "test") | dict.fromkeys("ef", "train")
    found = clusters(groups, splits)
    assert found == {"a": "a", "b": "b", "c": "c", "d": "d", "e": "e", "f": "f"}
    pairs = {"a": "a", "b": "a", "c": "c", "d": "c"}
    assert clusters(pairs, dict.fromkeys("abcd", "test")) == pairs


def video_header(identity, source, split=None, group=None):
    video = {"split": split, "group": group}
    return {"identity": identity, "sources": {"original": identity, "X": source}, "video": video}


def test_people_of_one_folder_stay_together_or_are_too_few():
    """DFDC: nobody knows who is who within a folder."""
    headers = [video_header(f"{g}{n}", f"{g}{n}", group=g) for g in "abc" for n in range(4)]
    _, splits = assign_splits(headers, SHARES, 0)
    assert all(len({splits[f"{g}{n}"] for n in range(4)}) == 1 for g in "abc")
    with pytest.raises(ValueError, match=r"8 identities form 2 group\(s\).*too few for the splits"):
        assign_splits(headers[:8], SHARES, 0)


def test_where_all_lend_to_all_people_are_drawn_one_by_one():
    names = [f"p{n}" for n in range(10)]
    headers = [video_header(a, b) for a in names for b in names if a != b]
    groups, splits = assign_splits(headers, SHARES, 0)
    assert len(set(groups.values())) == 1 and set(splits.values()) == set(SHARES)


@pytest.mark.parametrize("seed", range(5))
def test_people_who_were_never_forged_do_not_keep_all_forgeries_in_one_split(seed):
    names = [f"p{n}" for n in range(10)]
    headers = [video_header(a, b) for a in names for b in names if a != b]
    headers += [
        video_header(f"r{n}", f"r{n}") | {"sources": {"original": f"r{n}"}} for n in range(5)
    ]
    _, splits = assign_splits(headers, SHARES, seed)
    assert {splits[name] for name in names} == set(SHARES)


def test_people_without_official_split_are_drawn_where_all_splits_are_official():
    headers = [video_header(name, name, split) for name, split in zip("abc", SHARES, strict=True)]
    headers += [video_header(f"d{n}", f"d{n}") for n in range(6)]
    _, splits = assign_splits(headers, SHARES, 0)
    assert [splits[name] for name in "abc"] == list(SHARES)
    assert {splits[f"d{n}"] for n in range(6)} == set(SHARES)
