"""What segmentation and detection share: learning from annotated images."""
