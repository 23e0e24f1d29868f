"""Images with annotations of pixels or objects: label maps, boxes and masks."""
