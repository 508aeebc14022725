"""Models beside the study's own: of a second data set, of both, and of self-blended forgeries alone."""

from dataclasses import dataclass, field, replace
from typing import Any

from fwstudy.crops.cropset import CropSet
from fwstudy.crops.joined import join
from fwstudy.params import Params
from fwstudy.runtime import project_root
from fwstudy.training.runs import BASELINE, OWN, Run, find_run

FIRST = "crops"  # folder in ``data`` with the study's own crops
OWN_TRAINING = "own"  # what the study's models were trained on: its own crops


@dataclass(frozen=True)
class Training:
    """What models are trained on.

    Args:
        first, other: whether on the study's own crops, and on those of the second data set.
        names: of the models.
        changes: to the section ``train`` of params.yaml.
    """

    first: bool = True
    other: bool = False
    names: tuple[str, ...] = OWN
    changes: dict[str, Any] = field(default_factory=dict)


TRAININGS = {
    OWN_TRAINING: Training(),  # by the stage `train`
    "other": Training(first=False, other=True),
    "both": Training(other=True),
    # Fine-tuning would show forgeries of the data set to the whitened model, in its concept sets.
    "self_blended": Training(names=(BASELINE,), changes={"self_blended_ratio": 1.0}),
}
"""By the names in ``cross_dataset.trainings``, and the study's own."""


@dataclass(frozen=True)
class Study:
    """The models of one training.

    Args:
        label: what they are trained on, in words.
        runs: in the order in which they are trained.
        params: to train them with.
        folders: in ``data``, by the name of the data set: the crops that they are trained on.
    """

    label: str
    runs: list[Run]
    params: Params
    folders: dict[str, str]

    def crops(self) -> CropSet:
        """All that they are trained, selected and tested on, at the study's quality.

        Raises:
            FileNotFoundError, ValueError: see `CropSet.open` and `join`.
        """
        return join({name: open_crops(self.params, where) for name, where in self.folders.items()})


def folders_of(params: Params, source: str) -> dict[str, str]:
    """Folders in ``data`` with the crops of the study and of a second data set, by their sources.

    Args:
        source: one of ``cross_dataset.sources``.
    """
    other = params.other_faces(source).source
    return {params.faces.source: FIRST, other: f"cross_dataset/{source}/crops"}


def open_crops(params: Params, folder: str) -> CropSet:
    """The crops of a folder in ``data`` at the study's quality."""
    crops = CropSet.open(project_root() / "data" / folder)
    return crops.select(quality=params.preprocess.quality)


def cross_study(params: Params, source: str, training: str) -> Study:
    """The models of one training, trained or not.

    Args:
        source: one of ``cross_dataset.sources``.
        training: a key of `TRAININGS`.
    """
    chosen, folders = TRAININGS[training], folders_of(params, source)
    wanted = zip(folders.items(), (chosen.first, chosen.other), strict=True)
    folders = dict(item for item, used in wanted if used)
    place = None if training == OWN_TRAINING else f"cross_dataset/{source}/{training}"
    seed = params.cross_dataset.seed
    runs = [find_run(params, name, seed, place) for name in chosen.names]
    runs = [replace(run, crops=tuple(folders.values())) for run in runs]
    changed = params.train.model_copy(update=chosen.changes)
    label = " + ".join(folders) + (", self-blended alone" if chosen.changes else "")
    return Study(label, runs, params.model_copy(update={"train": changed}), folders)


def all_studies(params: Params, source: str) -> dict[str, Study]:
    """The study's own models, then those of every one of ``cross_dataset.trainings``."""
    names = [OWN_TRAINING, *params.cross_dataset.trainings]
    return {name: cross_study(params, source, name) for name in names}
