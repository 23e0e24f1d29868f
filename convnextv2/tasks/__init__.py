"""What a model can learn: one folder for each task.

`training.task.Task` says what a task consists of. A new task touches neither the loop nor the run
folder nor the other tasks.
"""
