"""From images to answers, in this process: what the verbs and the server share.

From the inside out: a `Graph` or a `Runner` of `convnextv2.deploy` computes. A `Scorer` has one of
them, and turns pixels into `Scores`. A `Predictor` has a scorer, and turns images of any kind into
named predictions. A `Reconstructor` shows what a pre-trained model makes of masked images. A
backend is one of several ways to compute logits; they are compared by the benchmark verb.
"""
