"""Bytes of an image file to pixels, upright and with the requested number of channels.

Plain JPEG files go through simplejpeg if it is installed, stacks of bands through tifffile or
NumPy, everything else through Pillow. simplejpeg and Pillow both use libjpeg-turbo with the exact
settings, so the pixels do not depend on which of them is installed.

What cannot be read is a DataError with the file's name. Metadata never cost the pixels: what is
damaged outside of the pixels is passed over. Sizes are checked before any pixel is decoded, and
they are those that a decoder allocates (tiles of TIFF, frames of AVIF), not only those that the
header states; `limits` says how much memory and time that leaves.
"""

from convnextv2.data.decode.picture import Picture, decode, open_picture
from convnextv2.data.decode.pillow import from_pillow
from convnextv2.data.formats import FORMATS, SUFFIXES

__all__ = ["FORMATS", "SUFFIXES", "Picture", "decode", "from_pillow", "open_picture"]
