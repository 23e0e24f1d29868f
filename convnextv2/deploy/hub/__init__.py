"""A model as a repository of the Hugging Face Hub: its folder, its card, and the upload."""
