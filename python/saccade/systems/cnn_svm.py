"""An Architecture Combining Convolutional Neural Network (CNN) and Support Vector Machine (SVM) for
Image Classification.

The small run trains the paper's network on part of the data with its two last layers: a linear
support vector machine with the squared hinge, and softmax with cross-entropy. The paper finds the
two comparable, softmax a little better.

It has not been run over seeds yet. CNN-SVM with seed 0 alone reached 96.6 % of MNIST after 10
epochs; the 6 that remain are what six runs of two cores fit into about five minutes.
"""

from __future__ import annotations

from saccade.learn.config import TrainConfig
from saccade.systems._arms import ACCURACY, TrainedArms
from saccade.systems._protocol import Comparison, Floor, System

SVM, SOFTMAX = "CNN-SVM", "CNN-Softmax"
ARMS = {SVM: {"loss": "svm"}, SOFTMAX: {"loss": "ce"}}

# 24 epochs of MNIST's 54,000 training images are the paper's 10,000 steps.
PAPER = TrainConfig(
    model="cnn_svm",
    data="mnist",
    in_chans=1,
    augment="none",
    normalize="none",
    epochs=24,
    batch_size=128,
    loss="svm",
    optimizer="adam",
    lr=1e-3,
    schedule="constant",
    weight_decay=0.0,
)
SMALL = PAPER.replace(epochs=6)
SIZES = {"train": 5000, "val": 100, "test": 2000}

# Stated before any run over seeds, and not calibrated: CNN-SVM of seed 0 alone came to 96.6 % of
# MNIST after 10 epochs; 6 are run here.
THRESHOLDS = {"mnist": 93.0}


SYSTEM = System(
    name="cnn_svm",
    title=(
        "An Architecture Combining Convolutional Neural Network (CNN) and Support Vector Machine "
        "(SVM) for Image Classification"
    ),
    paper="arXiv 1712.03541",
    year=2017,
    link="https://arxiv.org/abs/1712.03541",
    operators=(),
    claim=(
        "A linear support vector machine as a convolutional network's last layer classifies about "
        "as well as softmax."
    ),
    data=("mnist", "digits"),
    run=TrainedArms(SMALL, PAPER, SIZES, ARMS),
    arms=tuple(ARMS),
    main=Comparison(ACCURACY, SVM, SOFTMAX, expected=1.0, direction="equal"),
    also=(
        Comparison(
            ACCURACY, SOFTMAX, SVM, expected=0.0, note="softmax slightly better, as in the paper"
        ),
    ),
    floor=Floor(ACCURACY, SVM, THRESHOLDS),
    figures={
        "MNIST, CNN-SVM / CNN-Softmax": "99.04 / 99.23 %",
        "Fashion-MNIST, CNN-SVM / CNN-Softmax": "90.72 / 91.86 %",
    },
)
