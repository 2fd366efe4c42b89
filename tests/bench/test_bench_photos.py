"""A picture's code survives JPEG and resizing, and nothing else passes for it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from bench import marks, photos


@pytest.fixture(scope="module")
def jpeg() -> tuple[int, bytes]:
    """One picture and its code, made anew."""
    bgr = cv2.cvtColor(photos.pixels(640, 480, 1387), cv2.COLOR_RGB2BGR)
    return 1387, cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, photos.QUALITY])[1].tobytes()


def read(picture: np.ndarray) -> int | None:
    flat = np.ascontiguousarray(picture).reshape(-1)
    return marks.read(memoryview(flat), 0, *picture.shape[:2])


@pytest.mark.parametrize("size", [(640, 480), (300, 300), (96, 64)])
@pytest.mark.parametrize("fast", [False, True])
def test_the_code_survives(jpeg: tuple[int, bytes], size: tuple[int, int], fast: bool) -> None:
    """Any decoder and any size give the code back."""
    picture = simplejpeg.decode_jpeg(jpeg[1], fastdct=fast, fastupsample=fast)
    assert read(cv2.resize(picture, size)) == jpeg[0]


def test_a_picture_that_was_spoilt_has_no_code(jpeg: tuple[int, bytes]) -> None:
    """Swapped channels, mirrored, turned or transposed: a gateway that does this is found out."""
    picture = simplejpeg.decode_jpeg(jpeg[1])
    for spoilt in (
        picture[:, :, ::-1],
        picture[:, ::-1],
        picture[::-1],
        picture[::-1, ::-1],
        picture.transpose(1, 0, 2),
    ):
        assert read(spoilt) is None


def test_every_code_has_an_answer_of_its_own() -> None:
    """No two codes share an answer, and all of it is above the default threshold and in range."""
    answers = {marks.detections(code) for code in range(marks.CODES)}
    assert len(answers) == marks.CODES
    for answer in answers:
        assert [row.score for row in answer] == sorted((row.score for row in answer), reverse=True)
        for row in answer:
            assert 0.5 < row.score < 1
            assert 0 <= row.y1 < row.y2 <= 1
            assert 0 <= row.x1 < row.x2 <= 1


def test_pictures_are_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two makings of a picture are equal byte for byte."""
    monkeypatch.setattr(photos, "CACHE", tmp_path / "one")
    first = photos.photo("640x480", 5)
    monkeypatch.setattr(photos, "CACHE", tmp_path / "two")
    assert photos.photo("640x480", 5) == first
    assert 60_000 < len(first) < 90_000
