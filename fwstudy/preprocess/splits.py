"""Splits that are disjoint by person: people who lend each other faces stay together."""

from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from fwstudy.labels import ORIGINAL


def lending_groups(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Identities that lend each other faces, directly or through others, form one group.

    Args:
        pairs: an identity, and the source of a face it was shown with.

    Returns:
        identity to the first identity of its group (of the connected component), in order.
    """
    pairs = list(pairs)
    people = DisjointSet(name for pair in pairs for name in pair)
    for pair in pairs:
        people.merge(*pair)
    return dict(sorted((name, min(group)) for group in people.subsets() for name in group))


def split_identities(groups: dict[str, str], shares: dict[str, float], seed: int) -> dict[str, str]:
    """Assign every identity to a split so that no forgery joins two splits.

    Whole groups are drawn at random, each going to the split that is furthest below its share.

    Args:
        groups: as from `lending_groups`.
        shares: split name to share of the identities; the shares sum to 1.
        seed: of the drawing order.

    Returns:
        identity to split name.

    Raises:
        ValueError: fewer groups than splits.
    """
    members = defaultdict(list)
    for name, group in sorted(groups.items()):
        members[group].append(name)
    if len(members) < len(shares):
        raise ValueError(
            f"{len(groups)} identities form {len(members)} group(s) that lend each other faces or come "
            f"together: too few for the splits {', '.join(shares)}"
        )
    filled, assigned = dict.fromkeys(shares, 0), {}
    for name in np.random.default_rng(seed).permutation(sorted(members)):
        split = min(filled, key=lambda name: filled[name] / shares[name])
        filled[split] += len(members[name])
        assigned.update(dict.fromkeys(members[name], split))
    return assigned


def assign_splits(
    headers: list[dict], shares: dict[str, float], seed: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Group and split of every identity: official splits as they are, the others drawn.

    Where so many people lend each other faces that their groups cannot be split, or a split would have
    no forgery, people are drawn one by one (those of a named group together); forgeries that join two
    splits must then be left out (`fwstudy.preprocess.build.build_crops`).

    Args:
        headers: of the clips, see `fwstudy.clips.load_header`.
        shares, seed: see `split_identities`.

    Returns:
        identity to group, and identity to split.

    Raises:
        ValueError: official splits that share a person (named), or too few people.
    """
    videos = [head.get("video") or {} for head in headers]
    pairs = [(head["identity"], source) for head in headers for source in head["sources"].values()]
    named = [
        (head["identity"], video["group"])
        for head, video in zip(headers, videos, strict=True)
        if video.get("group")
    ]
    # A named group is one more lender, of its members alone.
    pairs += [(identity, f"group of {group}") for identity, group in named]
    groups = lending_groups(pairs)
    groups = {name: group for name, group in groups.items() if not name.startswith("group of ")}
    official: dict[str, str] = {}
    for head, video in zip(headers, videos, strict=True):
        split = video.get("split")
        for person in {head["identity"], *head["sources"].values()} if split else ():
            if official.setdefault(person, split) != split:
                raise ValueError(
                    f"{person} is in two official splits: {official[person]} and {split}"
                )
    drawn = {name: group for name, group in groups.items() if name not in official}
    if not drawn:
        return groups, official
    left = {name: share for name, share in shares.items() if name not in official.values()}
    of_group = dict(named)
    alone = {name: of_group.get(name, name) for name in drawn}
    forged = {head["identity"] for head in headers if set(head["sources"]) - {ORIGINAL}}
    try:
        splits = split_identities(drawn, left or shares, seed)
    except ValueError:
        if not any(videos):
            raise
        splits = split_identities(alone, left or shares, seed)
    # One group may hold all the forgeries, beside others who can be split but were never forged.
    if any(videos) and set(left) - {split for name, split in splits.items() if name in forged}:
        splits = split_identities(alone, left, seed)
    return groups, official | splits


def clusters(groups: dict[str, str], splits: dict[str, str]) -> dict[str, str]:
    """What intervals resample: groups of people who lend each other faces, or single people.

    The latter in a split of which one group holds more than half, as where everybody lends to everybody:
    too few groups to resample. Intervals are too narrow there by as much as lending makes people alike.

    Args:
        groups, splits: of every identity, see `assign_splits`.

    Returns:
        identity to the name of its cluster.
    """
    found = dict(groups)
    for split in set(splits.values()):
        people = [name for name in splits if splits[name] == split]
        largest = max(Counter(groups[name] for name in people).values())
        if largest > len(people) / 2:
            found |= {name: name for name in people}
    return found
