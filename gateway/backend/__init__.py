"""A TensorFlow Serving for development and the demo: one model, over the official gRPC services.

Production points at TensorFlow Serving; the gateway cannot tell the two apart. Needs the extra
``embedded``, which brings TensorFlow; ``server`` imports it only when a server is made.
"""
