"""Images with annotations for their places: label maps, boxes, masks."""
