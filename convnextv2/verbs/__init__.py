"""One small file per verb: the function that Python users call and the command line runs."""
