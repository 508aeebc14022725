"""Sets of values, written into params.yaml: ``python -m fwstudy.profiles paper``.

The sets are the section ``profiles`` of params.yaml itself. All other values stay as they are, and so do
comments, but for those that follow a list; ``git checkout params.yaml`` undoes it.
"""

import argparse
import io
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, get_args

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fwstudy.params import VIDEO_SOURCES, applied, load_params, read
from fwstudy.runtime import project_root


def write_profile(path: Path, name: str) -> dict[str, Any]:
    """Set the values of one profile in params.yaml, in the form that DVC gives it.

    What is to be written is read back first, and compared with what was to be set.

    Args:
        path: of params.yaml.
        name: of the profile.

    Returns:
        the values that were set, by dotted key.

    Raises:
        ValueError: params.yaml is not valid, has no such profile (the message lists those there are), or
            is laid out so that its values cannot be replaced. The file is left as it was.
    """
    values = load_params(path).profile(name)
    text, new, yaml = path.read_text(encoding="utf-8"), io.StringIO(), YAML()
    yaml.default_flow_style = False
    content = applied(yaml.load(text), values)
    for key in (key for key, value in values.items() if value == []):
        *sections, last = key.split(".")
        place = reduce(getitem, sections, content)
        place.ca.items.pop(last, None)  # behind a comment, `[]` would swallow the line break
    yaml.dump(content, new)
    if not reads_as(new.getvalue(), applied(read(text), values)):
        raise ValueError(f"{path}: its layout would not survive; set profiles.{name} by hand")
    partial = path.with_suffix(".partial")
    partial.write_text(new.getvalue(), encoding="utf-8")
    partial.replace(path)  # in one step: a full disk leaves the settings as they were
    return values


def reads_as(text: str, content: dict) -> bool:
    """Whether a text is YAML of that content."""
    try:
        return read(text) == content
    except YAMLError:
        return False


def main() -> None:
    """Write one profile and say what was set."""
    parser = argparse.ArgumentParser(description="Write a set of values into params.yaml.")
    parser.add_argument("name", help="a key of `profiles` in params.yaml")
    name = parser.parse_args().name
    try:
        values = write_profile(project_root() / "params.yaml", name)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    for key, value in values.items():
        print(f"{key}: {value}")
    if values.get("faces.source") in get_args(VIDEO_SOURCES):
        print(
            "Set faces.videos.root to the data set's folder, then `make repro` (with HF_HUB_OFFLINE=0 "
            "where train.backbone.weights is hub)."
        )


if __name__ == "__main__":
    main()
