"""kNN: the labels of the nearest training samples."""

import numpy as np

from graft.baselines.neighbours import Neighbours
from graft.transferability.base import Evidence, HeldOut


class KNN(HeldOut):
    """Nearest by cosine; how many are asked is chosen by cross-validation inside the training labels."""

    name, title = "knn", "kNN"
    paper = "as a proxy: Renggli et al., Which Model to Transfer? Finding the Needle in the Growing Haystack, CVPR 2022"
    means = "how often the nearest training samples, by cosine of the features, have a validation sample's label"
    not_for = "full fine-tuning, which moves the features; a few large features hide the others"

    def predictions(self, evidence: Evidence) -> np.ndarray:
        """Of the validation samples."""
        model = Neighbours()
        model.fit(evidence.features, evidence.labels, evidence.num_classes)
        predicted = model.predict(evidence.val_features)
        if evidence.kind == "classes":
            return predicted.argmax(1)
        return predicted > 0.5 if evidence.kind == "labels" else predicted
