"""The square around a face."""

import cv2
import numpy as np

from fwstudy.crops import boxes


def test_face_box_golden():
    landmarks = np.array([[10, 20], [50, 40]])
    # longer side 40, times 1.5 = 60, about (30, 30)
    assert boxes.face_box(landmarks, 1.5).tolist() == [0, 0, 60, 60]


def test_crop_reaches_outside_by_mirroring():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    cut = boxes.crop(image, np.array([-1, -1, 3, 3]), 4, cv2.INTER_NEAREST)
    np.testing.assert_array_equal(cut, np.pad(image, 1, mode="reflect")[:4, :4])


def test_image_and_mask_are_cut_alike():
    rng = np.random.default_rng(0)
    image = np.zeros((50, 60, 3), np.uint8)
    mask = np.zeros((50, 60), np.uint8)
    y, x = rng.integers(10, 40, 2)
    image[y : y + 5, x : x + 5] = mask[y : y + 5, x : x + 5] = 255
    box = np.array([-7, 3, 61, 71])
    a = boxes.crop(image, box, 32, cv2.INTER_AREA)
    b = boxes.crop(mask, box, 32, cv2.INTER_AREA)
    np.testing.assert_array_equal(a[..., 0], b)
    assert b.any()
