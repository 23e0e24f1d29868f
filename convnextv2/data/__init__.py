"""Data: from files to batches of pixels, and on the device from pixels to images."""
