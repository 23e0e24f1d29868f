"""Opens, describes, converts and writes weights of this package and of other libraries.

A file passes through this package as follows: `containers` opens it, `detect` recognises its
format, `renaming` gives its tensors canonical names from the table in `names`, `describe` infers
the network that they belong to, `opened` combines these steps, and `restore` or `adapt` loads the
tensors into a model.
"""
