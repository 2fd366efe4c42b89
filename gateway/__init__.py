"""Object detection behind one HTTP call: an asynchronous batching gateway to TensorFlow Serving."""
