"""The detector: a small fully convolutional network that finds digits by their centres.

Every cell of 8x8 pixels says how near the centre of a digit is, which digit, and how far the four
sides of its box are (after "Objects as Points", Zhou et al., 2019, with the training targets of
"Training-Time-Friendly Network", Liu et al., 2020).
"""

import keras
import tensorflow as tf
from keras import layers

__all__ = ["DIGITS", "Detector", "build", "loss", "standardise", "vary"]

DIGITS = 10
STRIDE = 8
LONGEST = 320  # pixels of the longer side, at which the network sees a picture
COARSEST = 32  # the network's largest stride: sides are padded to a multiple of it
MAX_DETECTIONS = 100
MIN_SCORE = 0.05
MAX_OVERLAP = 0.5


def build() -> keras.Model:
    """The network: [n, height, width, 3] standardised to [n, height/8, width/8, 1 + 10 + 4].

    The logit of a centre, a logit for each digit, and the logarithms of the distances up, left,
    down and right.
    """
    pixels = keras.Input((None, None, 3))
    x = _convolution(pixels, 16, stride=2)
    x = _convolution(x, 32, stride=2)
    fine = _residual(_convolution(x, 48, stride=2), 48)
    middle = _residual(_convolution(fine, 80, stride=2), 80)
    coarse = _residual(_convolution(middle, 112, stride=2), 112)
    x = _upsampled(coarse, 80) + middle
    x = _upsampled(_convolution(x, 80), 48) + fine
    x = _convolution(_convolution(x, 48), 64)
    rare = keras.initializers.Constant(-4.0)  # at first, nearly every cell is background
    centre = layers.Conv2D(1, 1, bias_initializer=rare)(x)
    digit = layers.Conv2D(DIGITS, 1)(x)
    sides = layers.Conv2D(4, 1, bias_initializer=keras.initializers.Constant(1.0))(x)
    return keras.Model(pixels, layers.Concatenate()([centre, digit, sides]))


def _convolution(x: tf.Tensor, channels: int, stride: int = 1, size: int = 3) -> tf.Tensor:
    x = layers.Conv2D(channels, size, stride, "same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.99)(x))


def _residual(x: tf.Tensor, channels: int) -> tf.Tensor:
    y = _convolution(x, channels)
    y = layers.Conv2D(channels, 3, padding="same", use_bias=False)(y)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.99)(y) + x)


def _upsampled(x: tf.Tensor, channels: int) -> tf.Tensor:
    return layers.UpSampling2D(2)(_convolution(x, channels, size=1))


def standardise(pictures: tf.Tensor) -> tf.Tensor:
    """RGB 0..255 to mean 0 in each channel and deviation 1 over all three, picture by picture.

    Colour is kept: ink is often as bright as the page and only of another colour.
    """
    pictures = tf.cast(pictures, tf.float32)
    mean, variance = tf.nn.moments(pictures, axes=[1, 2], keepdims=True)
    return (pictures - mean) * tf.math.rsqrt(tf.reduce_mean(variance, -1, keepdims=True) + 25.0)


def vary(pictures: tf.Tensor) -> tf.Tensor:
    """Change a training batch at random: invert one picture in six, bend values, swap channels."""
    shape = [tf.shape(pictures)[0], 1, 1, 1]
    pictures = tf.cast(pictures, tf.float32)
    pictures = tf.where(tf.random.uniform(shape) < 1 / 6, 255 - pictures, pictures)
    share = (pictures / 255) ** tf.exp(tf.random.normal(shape, stddev=0.25))
    return 255 * tf.gather(share, tf.random.shuffle([0, 1, 2]), axis=-1)


def _cell_centres(rows: tf.Tensor, columns: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Pixel coordinates of the cells' centres, broadcastable to [rows, columns]."""
    y = (tf.range(rows, dtype=tf.float32) + 0.5) * STRIDE
    x = (tf.range(columns, dtype=tf.float32) + 0.5) * STRIDE
    return y[:, None], x[None, :]


def _decode(sides: tf.Tensor) -> tf.Tensor:
    """Boxes in pixels from the network's last four channels, [n, rows, columns, 4]."""
    y, x = _cell_centres(tf.shape(sides)[1], tf.shape(sides)[2])
    up, left, down, right = tf.unstack(STRIDE * tf.exp(tf.minimum(sides, 5.0)), axis=-1)
    return tf.stack([y - up, x - left, y + down, x + right], axis=-1)


def _iou(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Intersection over union of boxes, and the share of their common hull outside the union."""
    (ay0, ax0, ay1, ax1), (by0, bx0, by1, bx1) = tf.unstack(a, axis=-1), tf.unstack(b, axis=-1)
    height = tf.maximum(tf.minimum(ay1, by1) - tf.maximum(ay0, by0), 0.0)
    width = tf.maximum(tf.minimum(ax1, bx1) - tf.maximum(ax0, bx0), 0.0)
    common = height * width
    union = (ay1 - ay0) * (ax1 - ax0) + (by1 - by0) * (bx1 - bx0) - common
    hull = (tf.maximum(ay1, by1) - tf.minimum(ay0, by0)) * (
        tf.maximum(ax1, bx1) - tf.minimum(ax0, bx0)
    )
    return common / (union + 1e-6), (hull - union) / (hull + 1e-6)


def _split(outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The network's answer as centre [...], digit [..., 10] and sides [..., 4]."""
    return outputs[..., 0], outputs[..., 1 : 1 + DIGITS], outputs[..., 1 + DIGITS :]


def _hills(boxes: tf.Tensor, digits: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Around the centre of each box, a hill that falls from 1 to 0; [n, m, rows, columns]."""
    y, x = _cell_centres(rows, columns)
    y0, x0, y1, x1 = (side[:, :, None, None] for side in tf.unstack(boxes, axis=-1))
    # The top is the cell that holds the centre, so that the hill is exactly 1 there.
    top, peak = ((tf.floor((a + b) / 2 / STRIDE) + 0.5) * STRIDE for a, b in ((y0, y1), (x0, x1)))
    steep_y = tf.maximum((y1 - y0) * 0.09, 0.3 * STRIDE)
    steep_x = tf.maximum((x1 - x0) * 0.09, 0.3 * STRIDE)
    hills = tf.exp(-(((y - top) / steep_y) ** 2 + ((x - peak) / steep_x) ** 2) / 2)
    return tf.where((digits >= 0)[:, :, None, None] & (hills > 0.1), hills, 0.0)


def loss(outputs: tf.Tensor, boxes: tf.Tensor, digits: tf.Tensor) -> tf.Tensor:
    """The training loss of a batch, a scalar.

    Boxes [n, m, 4] are (ymin, xmin, ymax, xmax) in pixels; digits [n, m] are -1 where there is no
    box. Focal loss of the centres; near each, cross-entropy of the digit and generalised IoU.
    """
    centre, digit, sides = _split(outputs)
    hills = _hills(boxes, digits, tf.shape(outputs)[1], tf.shape(outputs)[2])
    hill, owner = tf.reduce_max(hills, axis=1), tf.argmax(hills, axis=1)

    score = tf.clip_by_value(tf.sigmoid(centre), 1e-5, 1 - 1e-5)
    focal = tf.where(
        hill > 0.999,
        -tf.math.log(score) * (1 - score) ** 2,
        -tf.math.log(1 - score) * score**2 * (1 - hill) ** 4,
    )
    truth = tf.maximum(tf.gather(digits, owner, batch_dims=1), 0)
    wrong = tf.nn.sparse_softmax_cross_entropy_with_logits(truth, digit)
    iou, apart = _iou(_decode(sides), tf.gather(boxes, owner, batch_dims=1))
    # Large digits have more cells, but no more weight than small ones.
    cells = tf.gather(tf.reduce_sum(hills, axis=[2, 3]) + 1e-6, owner, batch_dims=1)
    near = (wrong + 2.0 * (1 - iou + apart)) * hill / cells
    count = tf.reduce_sum(tf.cast(digits >= 0, tf.float32)) + 1.0
    return tf.reduce_sum(focal + near) / count


class Detector(tf.Module):
    """The trained network with everything around it, from pictures to detections.

    Saved with the signature of a TensorFlow 1 Object Detection export whose batch is dynamic.
    """

    def __init__(self, network: keras.Model) -> None:
        super().__init__()
        self.network = network

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="inputs")])
    def __call__(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detect digits in RGB pictures of one size.

        `detection_boxes` [n, 100, 4] are (ymin, xmin, ymax, xmax) from 0 to 1,
        `detection_scores` [n, 100] descend, `detection_classes` [n, 100] are the digit + 1, and
        `num_detections` [n] says how many are meant; all float32, the rest are zeros.
        """
        pictures, size = _fit(inputs)
        outputs = self.network(pictures, training=False)
        scores, boxes, digits = _peaks(outputs)
        scores, boxes, digits = _without_overlaps(scores, boxes, digits)
        boxes = tf.clip_by_value(boxes / tf.cast(tf.tile(size, [2]), tf.float32), 0.0, 1.0)
        found = tf.cast(scores > 0, tf.float32)
        return {
            "detection_boxes": boxes * found[..., None],
            "detection_scores": scores,
            "detection_classes": (tf.cast(digits, tf.float32) + 1) * found,
            "num_detections": tf.reduce_sum(found, axis=1),
        }


def _fit(inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Resize to the longer side of 320: the pictures, standardised and padded, and their size."""
    sides = tf.shape(inputs)[1:3]
    scale = LONGEST / tf.reduce_max(sides)
    size = tf.maximum(tf.cast(tf.round(tf.cast(sides, tf.float64) * scale), tf.int32), 1)
    # Areas are averaged where the picture shrinks, and interpolated where it grows.
    pictures = tf.image.resize(inputs, tf.minimum(size, sides), tf.image.ResizeMethod.AREA)
    pictures = tf.image.resize(pictures, size)
    after = -size % COARSEST
    padding = [[0, 0], [0, after[0]], [0, after[1]], [0, 0]]
    return tf.pad(standardise(pictures), padding), size


def _peaks(outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The cells that are centres sooner than their neighbours: scores, boxes in pixels, digits."""
    centre, digit, sides = _split(outputs)
    centre = tf.sigmoid(centre)
    is_peak = centre >= tf.nn.max_pool2d(centre[..., None], 3, 1, "SAME")[..., 0]
    score = centre * tf.reduce_max(tf.nn.softmax(digit), axis=-1)
    score = tf.where(is_peak & (score >= MIN_SCORE), score, 0.0)
    cells = tf.size(score[0])
    score = tf.reshape(score, [-1, cells])
    score = tf.pad(score, [[0, 0], [0, tf.maximum(MAX_DETECTIONS - cells, 0)]])
    best, index = tf.math.top_k(score, MAX_DETECTIONS)
    index = tf.minimum(index, cells - 1)
    boxes = tf.reshape(_decode(sides), [-1, cells, 4])
    digits = tf.reshape(tf.argmax(digit, axis=-1), [-1, cells])
    return best, tf.gather(boxes, index, batch_dims=1), tf.gather(digits, index, batch_dims=1)


def _without_overlaps(
    scores: tf.Tensor, boxes: tf.Tensor, digits: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Drop each box that overlaps a better one, of whatever digit, for all pictures at once."""
    overlap, _ = _iou(boxes[:, :, None], boxes[:, None, :])
    better = tf.linalg.band_part(tf.ones([MAX_DETECTIONS, MAX_DETECTIONS]), -1, 0) - tf.eye(
        MAX_DETECTIONS
    )
    alive = tf.cast(scores > 0, tf.float32)
    worst = tf.reduce_max(overlap * better * alive[:, None, :], axis=2)
    scores = tf.where(worst > MAX_OVERLAP, 0.0, scores)
    scores, order = tf.math.top_k(scores, MAX_DETECTIONS)
    return scores, tf.gather(boxes, order, batch_dims=1), tf.gather(digits, order, batch_dims=1)
