"""Training: one loop, and what it needs. The tasks in `convnextv2.tasks` share it."""
