"""The verbs, one module for each: the function that Python users call and the command line runs."""
