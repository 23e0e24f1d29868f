"""Inference in this process, from images to answers, for the verbs and the server.

The classes build on each other. A `Graph` or a `Runner` of `convnextv2.deploy` computes the outputs
of a network. A `Scorer` wraps one of them and turns pixels into `Scores`. A `Predictor` wraps a
scorer and turns images of any kind into named predictions. An `Embedder`, a `PixelClassifier` and
an `ObjectFinder` do the same for embeddings, segmentors and detectors. A `Reconstructor` shows how
a pre-trained model fills in masked images. A backend is one of several engines that compute logits;
the verb `benchmark` compares them.
"""
