"""The Flask way: a channel and a call a request, and the picture as a Python list of pixels.

Under gunicorn with four workers, as Flask's deployment page has it. It sends full pictures, so it
needs a model of dynamic size.
"""

import base64
import io
from typing import Any

import grpc
import numpy as np
from flask import Flask, request
from PIL import Image

from bench import wire
from bench.peers import answers

app = Flask(__name__)


@app.post("/imageDetection")
def detect() -> dict[str, Any]:
    """Answer one request."""
    body = request.get_json(force=True)
    image = Image.open(io.BytesIO(base64.b64decode(body["image"])))
    width, height = image.size
    pixels = np.array(image.getdata()).reshape((1, height, width, 3)).astype(np.uint8)
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(answers.BACKEND, options) as channel:
        message = wire.predict_request(
            body["model_name"], "inputs", pixels.shape, answers.OUTPUTS, [pixels.data]
        )
        response = channel.unary_unary(wire.PREDICT)(message, timeout=30)
    return answers.read(response, body["threshold"])[0]
