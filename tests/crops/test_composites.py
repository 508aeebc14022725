"""One part of a face taken from its forgery."""

import numpy as np

from fwstudy.crops.composites import forged_parts, transplant
from fwstudy.labels import FORGED_PARTS, PARTS


def test_transplant_takes_its_parts_and_nothing_else():
    parts = np.zeros((64, 64), np.uint8)
    parts[10:20, 10:20], parts[40:50, 40:50] = PARTS.index("nose"), PARTS.index("mouth")
    original = np.random.default_rng(0).integers(0, 100, (64, 64, 3)).astype(np.uint8)
    forged = original + 100
    image, where = transplant(original, forged, parts, [2])
    assert np.array_equal(image[~where], original[~where])
    assert np.array_equal(image[12:18, 12:18], forged[12:18, 12:18])
    assert where[10:20, 10:20].all() and not where[30:].any()
    assert not transplant(original, forged, parts, [0])[1].any()


def test_forged_parts_are_those_that_changed_for_the_most_part():
    parts = np.zeros((20, 20), np.uint8)
    parts[:10, :10], parts[10:, 10:] = PARTS.index("nose"), PARTS.index("mouth")
    changed = np.zeros((20, 20), bool)
    changed[:10, :6], changed[10:, 10:14] = True, True  # 60 % and 40 %
    found = forged_parts(changed, parts)
    assert [name for name, is_forged in zip(FORGED_PARTS, found, strict=True) if is_forged] == [
        "nose"
    ]
