"""Train the digit detector: `python examples/digits/train.py`.

Writes the SavedModel to `model/1`, the pictures of `samples/` and the figures of `metrics.json`,
all beside this file unless `--out` says otherwise, and prints the figures. Where the handwriting
comes from, and its licences, stand in `glyphs.py`. Everything is seeded; only the order of
floating-point sums differs from run to run.
"""

import argparse
import json
import shutil
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from batches import SEED, batches, held_out_handwriting, held_out_pictures
from evaluate import evaluate
from network import Detector, build, loss, standardise, vary
from numpy.typing import NDArray
from samples import random_notes, write_samples
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def train(steps: int) -> keras.Model:
    """Train a network on `steps` batches."""
    keras.utils.set_random_seed(SEED)
    network = build()
    variables = network.trainable_variables
    rate = keras.optimizers.schedules.CosineDecay(
        1e-4, steps, alpha=0.01, warmup_target=2.5e-3, warmup_steps=min(150, steps // 10)
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=1e-4, clipnorm=10.0)
    optimizer.build(variables)

    @tf.function(jit_compile=True)  # compiled once for each size of `TILES`: a fifth faster
    def step(pixels: tf.Tensor, boxes: tf.Tensor, digits: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss(network(standardise(vary(pixels)), training=True), boxes, digits)
        optimizer.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))
        return value

    start = time.monotonic()
    recent: deque[float] = deque(maxlen=100)
    for i, batch in enumerate(batches(steps), 1):
        recent.append(float(step(*map(tf.constant, batch))))
        if i % 50 == 0:
            seconds = time.monotonic() - start
            print(f"step {i}/{steps} loss {np.mean(recent):.3f} {seconds:.0f} s", flush=True)
    return network


def save(detector: Detector, path: Path) -> None:
    """Write a SavedModel whose weights are constants of its graph.

    TensorFlow Serving restores variables by their names in the graph, under which Keras 3 does not
    save them; constants it finds in any case.
    """
    concrete = detector.__call__.get_concrete_function()
    names = sorted(concrete.structured_outputs)
    frozen = convert_variables_to_constants_v2(concrete)
    module = tf.Module()
    module.detect = tf.function(
        lambda inputs: dict(zip(names, frozen(inputs), strict=True)),
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="inputs")],
    )
    tf.saved_model.save(module, str(path), {"serving_default": module.detect})


def main() -> None:
    """Train, save, and evaluate what was saved."""
    parser = argparse.ArgumentParser(description="Train the detector of handwritten digits.")
    parser.add_argument("--steps", type=int, default=8400)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()

    detector = Detector(train(arguments.steps))
    path = arguments.out / "model" / "1"
    shutil.rmtree(path, ignore_errors=True)
    save(detector, path)
    predict = tf.saved_model.load(str(path)).signatures["serving_default"]

    def detect(pictures: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return {name: value.numpy() for name, value in predict(inputs=pictures).items()}

    handwriting = held_out_handwriting()
    tests = {"notes": random_notes(handwriting, 300, SEED), "hard": held_out_pictures(600)}
    scores = {name: asdict(evaluate(detect, pictures)) for name, pictures in tests.items()}
    metrics = json.dumps(scores, indent=2)
    (arguments.out / "metrics.json").write_text(metrics + "\n")
    write_samples(handwriting, arguments.out / "samples")
    print(metrics)


if __name__ == "__main__":
    main()
