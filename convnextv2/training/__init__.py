"""Training: one loop, and what it needs. `supervised` and `masked` build from a recipe and call it."""
