"""Images with annotations: label maps for segmentation, and boxes and masks for detection."""
