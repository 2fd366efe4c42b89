"""POST /imageDetection as the interface promises it."""

import asyncio
import json
import random

import grpc
import numpy as np
import pytest
from tensorflow.core.framework import types_pb2


async def test_a_photograph_in_detections_out(gateway, ask, photo):
    """The answer has exactly the promised fields; x1 is left, y1 top, x2 right, y2 bottom."""
    status, answer = await ask(gateway, image=photo((70, 128, 64)))
    assert status == 200
    assert answer.keys() == {"detections", "controller_time", "tfserve_time", "model_version"}
    assert answer["detections"] == [
        {
            "class_id": 7,
            "score": 0.9,
            "class_label": None,
            "hit_box": {"x1": 0.25, "y1": 0.25, "x2": 0.625, "y2": 0.75},
        }
    ]
    assert 0 < answer["tfserve_time"] < answer["controller_time"]


async def test_labels_by_model(start, serving, fake_model, ask, photo, tmp_path):
    """Each model has its own labels, a file's or COCO's; a class without one has null."""
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\n")
    serving.models |= {"coco": fake_model(), "none": fake_model()}
    gateway = await start(models={"colors": str(labels), "coco": "coco"})
    for model, red, label in [
        ("colors", 20, "two"),
        ("colors", 90, None),
        ("coco", 10, "person"),
        ("coco", 120, None),  # COCO has no class 12
        ("none", 10, None),
    ]:
        _, answer = await ask(gateway, model_name=model, image=photo((red, 0, 0)))
        assert [found["class_label"] for found in answer["detections"]] == [label]


def several(images):
    scores = np.array([[0.3, 0.9, 0.4, np.nextafter(np.float32(0.4), 1), 0.95]], np.float32)
    n = len(images)
    return {
        "detection_boxes": np.tile(np.float32([-0.1, 0.2, 1.5, 0.4]), (n, 5, 1)),
        "detection_scores": np.repeat(scores, n, axis=0),
        "detection_classes": np.tile(np.float32([1, 2, 3, 4, 5]), (n, 1)),
        "num_detections": np.full(n, 4, np.float32),
    }


async def test_threshold_and_order(gateway, serving, ask):
    """Only scores above the threshold come, best first, clipped, and none beyond num_detections."""
    serving.models["colors"].detect = several
    for threshold, classes in [(None, [2, 4]), (0, [2, 4, 3, 1]), ("0.4", [2, 4]), (1, [])]:
        extra = {} if threshold is None else {"threshold": threshold}
        _, answer = await ask(gateway, **extra)
        assert [found["class_id"] for found in answer["detections"]] == classes
        for found in answer["detections"]:
            assert found["hit_box"] == pytest.approx({"x1": 0.2, "y1": 0, "x2": 0.4, "y2": 1})


async def test_what_is_tolerated(gateway, ask, photo):
    """Any Content-Type, extra fields, a byte-order mark, and base64 as it comes in practice."""
    image = photo()
    body = json.dumps({"model_name": "colors", "image": image, "colour": "blue"})
    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = await gateway.post(
            "/imageDetection", data=body.encode(), headers={"Content-Type": content_type}
        )
        assert response.status == 200
    response = await gateway.post("/imageDetection", data=b"\xef\xbb\xbf" + body.encode())
    assert response.status == 200
    for spelling in (
        f"data:image/png;base64,{image}",
        "\n".join(image[n : n + 76] for n in range(0, len(image), 76)),
        image.replace("+", "-").replace("/", "_").rstrip("="),
    ):
        assert (await ask(gateway, image=spelling))[0] == 200


@pytest.mark.parametrize("body", [b"", b" \n", b"{", b"image=abc", b"\xff\xfe{}", b'{"image": '])
async def test_not_json(gateway, body):
    """An empty body, or one that is not JSON, is 400."""
    response = await gateway.post("/imageDetection", data=body)
    answer = await response.json()
    assert (response.status, answer["code"]) == (400, "invalid_json")
    assert answer.keys() == {"message", "code", "request_id"}


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"model_name": None}, ["model_name"]),
        ({"model_name": ""}, ["model_name"]),
        ({"model_name": 7}, ["model_name"]),
        ({"model_name": "x" * 300}, ["model_name"]),
        ({"image": ""}, ["image"]),
        ({"image": ["a"]}, ["image"]),
        ({"image": "no base64!"}, ["image"]),
        ({"image": "aGVsbG8gd29ybGQ="}, ["image"]),
        ({"threshold": -0.1}, ["threshold"]),
        ({"threshold": 1.1}, ["threshold"]),
        ({"threshold": "warm"}, ["threshold"]),
        ({"threshold": True}, ["threshold"]),
        ({"threshold": None}, ["threshold"]),
        ({"threshold": float("nan")}, ["threshold"]),
        ({"threshold": float("inf")}, ["threshold"]),
        ({"threshold": "NaN"}, ["threshold"]),
        ({"threshold": 2, "image": 3}, ["image", "threshold"]),
    ],
    ids=str,
)
async def test_fields_at_fault_are_named(gateway, ask, serving, change, fields):
    """A wrong field is 422, with the reasons under its name; several are named at once."""
    status, answer = await ask(gateway, **change)
    assert status == 422
    assert answer.keys() == {"message", "code", "request_id", "errors"}
    assert sorted(answer["errors"]) == fields
    assert all(isinstance(why, str) for reasons in answer["errors"].values() for why in reasons)
    assert serving.batches == []


@pytest.mark.parametrize("body", ["[]", '"text"', "7", "null", "{}"])
async def test_json_that_is_no_request(gateway, body):
    """JSON of another shape is 422, whether no object or an object without the fields."""
    response = await gateway.post("/imageDetection", data=body)
    assert response.status == 422
    errors = (await response.json())["errors"]
    assert list(errors) == (["model_name", "image"] if body == "{}" else ["body"])


async def test_unknown_model(gateway, ask):
    """A model that TensorFlow Serving does not have is 404, and is named."""
    status, answer = await ask(gateway, model_name="ghost")
    assert (status, answer["code"]) == (404, "model_not_found")
    assert "'ghost'" in answer["message"]


async def test_routes_and_methods(gateway):
    """405 names what is allowed; an unknown path is 404; both in the JSON of every error."""
    response = await gateway.get("/imageDetection")
    assert (response.status, response.headers["Allow"]) == (405, "POST")
    assert (await response.json())["code"] == "method_not_allowed"
    response = await gateway.post("/imagedetection")
    assert response.status == 404
    assert "/imageDetection" in (await response.json())["message"]


@pytest.mark.parametrize(
    ("status", "expected", "code"),
    [
        ("INVALID_ARGUMENT", 502, "backend_refused"),
        ("FAILED_PRECONDITION", 502, "backend_refused"),
        ("INTERNAL", 502, "backend_answer_invalid"),
        ("UNAVAILABLE", 503, "backend_unavailable"),
        ("RESOURCE_EXHAUSTED", 503, "backend_unavailable"),
        ("DEADLINE_EXCEEDED", 504, "deadline_exceeded"),
        ("NOT_FOUND", 404, "model_not_found"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
async def test_what_tensorflow_serving_says(gateway, serving, ask, known, status, expected, code):
    """A status of TensorFlow Serving keeps its meaning, at first use and later."""
    if known:
        await ask(gateway)
    serving.abort = (grpc.StatusCode[status], "secret /path\n at op")
    response = await gateway.post(
        "/imageDetection", json={"model_name": "colors", "image": (await any_photo())}
    )
    answer = await response.json()
    assert (response.status, answer["code"]) == (expected, code)
    assert (response.headers.get("Retry-After") == "1") == (expected == 503)
    serving.abort = None
    assert (await ask(gateway))[0] == 200


async def any_photo() -> str:
    return "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"  # a GIF of one pixel


def without(name):
    return lambda images: {k: v for k, v in several(images).items() if k != name}


def changed(name, value):
    return lambda images: {**several(images), name: value}


@pytest.mark.parametrize(
    "detect",
    [
        without("detection_boxes"),
        without("detection_scores"),
        changed("detection_scores", np.zeros((2, 5), np.float32)),
        changed("detection_scores", np.zeros(5, np.float32)),
        changed("detection_scores", np.full((1, 5), np.nan, np.float32)),
        changed("detection_boxes", np.full((1, 5, 4), np.nan, np.float32)),
        changed("detection_boxes", np.zeros((1, 5, 3), np.float32)),
        changed("detection_classes", np.full((1, 5), np.inf, np.float32)),
        changed("num_detections", np.zeros(3, np.float32)),
    ],
)
async def test_unusable_answers(gateway, serving, ask, detect):
    """An answer that is not a set of detections is 502, and no guess is made."""
    serving.models["colors"].detect = detect
    status, answer = await ask(gateway)
    assert (status, answer["code"]) == (502, "backend_answer_invalid")


async def test_a_model_that_is_no_detector(gateway, serving, fake_model, ask):
    """A model whose signature cannot be fed is 502, and the message says what is wrong with it."""
    serving.models["float"] = fake_model(dtype=types_pb2.DT_FLOAT)
    status, answer = await ask(gateway, model_name="float")
    assert (status, answer["code"]) == (502, "model_unsupported")
    assert "type float" in answer["message"]


async def test_request_id(gateway, ask):
    """A sane X-Request-ID comes back, in the header and in errors; any other is replaced."""
    for offered, kept in [("trace-1:a_b.c", True), ("x" * 129, False), ("a b", False), ("", False)]:
        response = await gateway.get("/nowhere", headers={"X-Request-ID": offered})
        returned = response.headers["X-Request-ID"]
        assert (returned == offered) is kept
        assert (await response.json())["request_id"] == returned
    first, second = [(await gateway.get("/healthz")).headers["X-Request-ID"] for _ in range(2)]
    assert first != second


async def test_every_answer_belongs_to_its_own_picture(start, photo, serving, fake_model):
    """64 clients post pictures of many colours, sizes, formats, some leave; no answer is mixed."""
    serving.models |= {
        "fixed": fake_model(shape=(-1, 20, 30, 3)),
        "single": fake_model(shape=(1, -1, -1, 3), input_name="input_tensor"),
    }
    gateway = await start(max_batch_size=8)
    chance = random.Random(7)

    async def client(number: int) -> int:
        answers = 0
        for _ in range(6):
            color = tuple(chance.randrange(256) for _ in range(3))
            size = chance.choice([(64, 48), (48, 64), (31, 17), (200, 100)])
            image = photo(color, size, chance.choice(["PNG", "JPEG", "BMP"]))
            name = chance.choice(["colors", "fixed", "single"])
            post = gateway.post("/imageDetection", json={"model_name": name, "image": image})
            if chance.random() < 0.2:
                task = asyncio.ensure_future(post)
                for _ in range(chance.randrange(40)):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                continue
            (found,) = (await (await post).json())["detections"]
            red, green, blue = color
            assert abs(found["class_id"] - red / 10) <= 0.7
            assert found["hit_box"]["x1"] == pytest.approx(green / 512, abs=0.01)
            assert found["hit_box"]["x2"] == pytest.approx(0.5 + blue / 512, abs=0.01)
            answers += 1
        return answers

    assert sum(await asyncio.gather(*map(client, range(64)))) > 250
    sizes = {name: [shape[0] for model, shape in serving.batches if model == name]
             for name in serving.models}  # fmt: skip
    assert max(sizes["fixed"]) > 1, "nothing was batched"
    assert max(sizes["fixed"]) <= 8
    assert set(sizes["single"]) == {1}
    assert {shape[1:] for model, shape in serving.batches if model == "fixed"} == {(20, 30, 3)}
