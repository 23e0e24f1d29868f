"""What a run is told to do: the knobs, MindCV's names and defaults for them, and reading both."""
