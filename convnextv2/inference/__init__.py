"""From images to answers, in this process: what the verbs and the server share."""
