"""An Architecture Combining Convolutional Neural Network (CNN) and Support Vector Machine (SVM) for
Image Classification.

The small run trains the paper's network on part of the data with its two last layers: a linear
support vector machine with the squared hinge, and softmax with cross-entropy. The paper finds the
two comparable, softmax a little better.
"""

from __future__ import annotations

from saccade.learn.config import TrainConfig
from saccade.systems._arms import ACCURACY, TrainedArms, each
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
# 624 steps; the two losses need some 500 to come together.
SMALL = PAPER.replace(epochs=8)
SIZES = {"train": 10_000, "val": 100, "test": 2000}

# Stated before the run at this size.
THRESHOLDS = {"mnist": 97.0}


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
    parts=each(ARMS),
    main=Comparison(ACCURACY, SVM, SOFTMAX, expected=1.0, direction="equal"),
    also=(
        Comparison(
            ACCURACY, SOFTMAX, SVM, expected=0.0, note="softmax slightly better, as in the paper"
        ),
    ),
    floor=Floor(ACCURACY, SVM, THRESHOLDS),
    findings=(
        "The number of steps decides, not the code. With 5,000 images and 234 steps CNN-SVM was "
        "1.2 points below over seeds 0 to 2. Seed 0 trained on showed it 1.0 below after 234 "
        "steps, 0.3 after 468, and 0.2 from there to 936 (97.4 against 97.6 %, mean over the last "
        "12 epochs); the paper has 0.19. With the paper's initialisation the scores start at a "
        "deviation of 6.6, where the squared hinge is 41 and the cross-entropy 10.7: the hinge "
        "spends the first epoch on making scores small (73 against 92 % after it), and its "
        "gradient vanishes where the margin is kept. Loss, C, initialisation and learning rate are "
        "the published code's, the same in both arms. The run has 10,000 images and 624 steps "
        "since."
    ),
    figures={
        "MNIST, CNN-SVM / CNN-Softmax": "99.04 / 99.23 %",
        "Fashion-MNIST, CNN-SVM / CNN-Softmax": "90.72 / 91.86 %",
    },
)
