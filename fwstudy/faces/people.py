"""Who is on a photograph, what is known of them, and who is swapped with whom."""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from fwstudy.labels import ONLY_EMPTY

IDENTITY_PATTERN = r"^[^_]+"
ATTRIBUTES = {"face_age": "age_years", "face_gender": "sex", "face_eth": "ethnicity"}
UNLIKE = {"sex": 30, "ethnicity": 15}  # how many years of age a difference weighs, in pairing


def split_name(stem: str, pattern: re.Pattern) -> tuple[str, str] | None:
    """Identity (the first group, or the whole match) and rest of a file name, if there is one."""
    found = pattern.search(stem)
    identity = found and (found.group(1) if pattern.groups else found.group())
    return (identity, stem[: found.start()] + stem[found.end() :]) if identity else None


def printable(path: Path) -> Path:
    """The path, if its name and those of its folders can be written to tables.

    Raises:
        ValueError: it is no text in UTF-8 (of an old archive, or another system); the message names it.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        name = str(path).encode(errors="backslashreplace").decode()
        raise ValueError(f"{name}: its name is no text in UTF-8, rename it") from None
    return path


def read_attributes(folder: Path) -> dict[str, dict]:
    """What is known of each person: from the CSV files in `folder` with a column ``face_id``.

    Returns:
        Identity to ``age_years`` (float), ``sex`` and ``ethnicity`` (as written), where given.

    Raises:
        ValueError: a table that cannot be read, or an age that is no number; the message names it.
    """
    known: dict[str, dict] = {}
    for path in sorted(folder.glob("[!.]*.csv")):
        try:
            table = pd.read_csv(path, dtype=str)
            if "face_id" in table:  # of a person who may be called NA
                named = pd.read_csv(path, usecols=["face_id"], dtype=str, **ONLY_EMPTY)
                table["face_id"] = named["face_id"]
            known |= _attributes(table)
        except ValueError as error:
            raise ValueError(f"{path}: cannot be read as a table of people: {error}") from error
    return known


def _attributes(table: pd.DataFrame) -> dict[str, dict]:
    known: dict[str, dict] = {}
    if "face_id" not in table or not set(ATTRIBUTES) & set(table):
        return known
    for row in table.to_dict("records"):
        person = {
            name: row[column]
            for column, name in ATTRIBUTES.items()
            if isinstance(row.get(column), str)
        }
        if "age_years" in person:
            person["age_years"] = float(person["age_years"])
        known[row["face_id"]] = person
    return known


def pair_identities(identities: Iterable[str], attributes: dict[str, dict]) -> dict[str, str]:
    """Give each person a partner of similar age, sex and ethnicity; in sorted order where unknown.

    Two by two, so that an identity split need not cut many swaps; if the number is odd, the last
    one borrows the most similar of all. A person alone gets no partner.
    """

    def unlike(first: str, second: str) -> float:
        one, other = attributes.get(first, {}), attributes.get(second, {})
        years = abs(one.get("age_years", 30) - other.get("age_years", 30))
        return years + sum(cost for key, cost in UNLIKE.items() if one.get(key) != other.get(key))

    everyone = sorted(identities)
    waiting, partners = list(everyone), {}
    while len(waiting) > 1:
        person = waiting.pop(0)
        partner = min(waiting, key=lambda other: unlike(person, other))
        waiting.remove(partner)
        partners |= {person: partner, partner: person}
    for person in waiting:
        others = [other for other in everyone if other != person]
        partners |= {person: min(others, key=lambda other: unlike(person, other))} if others else {}
    return partners
