"""Values of published protocols, written into params.yaml: ``python -m fwstudy.profiles paper``.

The sets are the section ``profiles`` of params.yaml itself. Comments and all other values stay as they
are; ``git checkout params.yaml`` undoes it.
"""

import argparse
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from fwstudy.params import applied, load_params
from fwstudy.runtime import project_root


def round_trip() -> YAML:
    """A reader and writer of YAML that keeps comments, anchors and the look of params.yaml."""
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 200
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return yaml


def in_line(value: Any) -> Any:
    """Lists and mappings written in one line, as in the rest of the file."""
    kinds = {list: CommentedSeq, dict: CommentedMap}
    if type(value) not in kinds:
        return value
    value = kinds[type(value)](value)
    value.fa.set_flow_style()
    return value


def nodes(value: Any) -> Iterator[Any]:
    """All lists and mappings of a document."""
    if isinstance(value, (CommentedMap, CommentedSeq)):
        yield value
        for child in value.values() if isinstance(value, CommentedMap) else value:
            yield from nodes(child)


def write_profile(path: Path, name: str) -> dict[str, Any]:
    """Set the values of one profile in params.yaml.

    Args:
        path: of params.yaml.
        name: of the profile.

    Returns:
        the values that were set, by dotted key.

    Raises:
        ValueError: params.yaml is not valid, or has no such profile; the message lists those there are.
            The file is left as it was.
    """
    profiles = load_params(path).profiles
    if name not in profiles:
        raise ValueError(f"{path}: no profile {name!r}; there are: {', '.join(profiles)}")
    yaml = round_trip()
    content = yaml.load(path.read_text(encoding="utf-8"))
    for node in nodes(content):
        if node.anchor.value:
            node.yaml_set_anchor(node.anchor.value, always_dump=True)
    applied(content, {key: in_line(value) for key, value in profiles[name].items()})
    text = io.StringIO()
    yaml.dump(content, text)
    path.write_text(text.getvalue(), encoding="utf-8")
    return profiles[name]


def main() -> None:
    """Write one profile and say what was set."""
    parser = argparse.ArgumentParser(description="Write the values of a protocol into params.yaml.")
    parser.add_argument("name", help="a key of `profiles` in params.yaml")
    path = project_root() / "params.yaml"
    try:
        values = write_profile(path, parser.parse_args().name)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    for key, value in values.items():
        print(f"{key}: {value}")
    print(
        "Set faces.videos.root to the data set's folder, then `make repro` (with HF_HUB_OFFLINE=0 where "
        "train.backbone.weights is hub)."
    )


if __name__ == "__main__":
    main()
