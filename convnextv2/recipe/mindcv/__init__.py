"""MindCV's recipes: its keys and values in our terms, and what else its recipes imply."""
