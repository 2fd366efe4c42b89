"""Pictures as clients send them: base64, five file formats, EXIF, and the pixels models want.

``gateway.imaging.annotate`` draws detections; it is imported by itself, for the server never does.
"""

from gateway.imaging.encoding import decode_base64
from gateway.imaging.jpeg import blank as blank_jpeg
from gateway.imaging.picture import Picture, open_picture

__all__ = ["Picture", "blank_jpeg", "decode_base64", "open_picture"]
