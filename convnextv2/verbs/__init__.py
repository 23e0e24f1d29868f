"""The verbs. `VERB.py` has the function that Python users call and the command line runs.

The other modules are parts of them.
"""
