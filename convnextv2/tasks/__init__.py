"""The tasks that a model can learn, one folder for each.

`training.task.Task` defines the parts of a task. A new task changes neither the loop nor the run
folder nor the other tasks.
"""
