"""Decodes image files to upright pixels with the requested number of channels.

Plain JPEG files are decoded by simplejpeg if it is installed, TIFF files and arrays of any number
of bands by tifffile and NumPy, and all others by Pillow. simplejpeg and Pillow both use
libjpeg-turbo, with settings that give exact results, so the pixels do not depend on which of them
is installed.

A file that cannot be read is a DataError with its name. Damaged metadata is ignored. Sizes are
checked before any pixel is decoded: not only those in the header, but also those that a decoder
allocates (tiles of TIFF, frames of AVIF). `limits` states how much memory and time remain possible.
"""

from convnextv2.data.decode.picture import Picture, decode, open_picture
from convnextv2.data.decode.pillow import from_pillow
from convnextv2.data.formats import FORMATS, SUFFIXES

__all__ = ["FORMATS", "SUFFIXES", "Picture", "decode", "from_pillow", "open_picture"]
