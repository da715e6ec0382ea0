"""Architectures, one file a paper, behind timm's grammar: `create_model`, `list_models` ..."""

from saccade.models import (
    cnn_svm,
    cvt,
    davit,
    inception,
    karat,
    lightweight_cnn,
    mamba_pkd,
    max_former,
    max_resnet,
    medvitv2,
    mixformer,
)
from saccade.models._classifier import Classifier, DefaultCfg, FeatureExtractor, FeatureInfo
from saccade.models._registry import (
    create_model,
    default_cfg,
    is_model,
    list_models,
    load_model,
    register_model,
)
from saccade.models._spiking import Activity, LayerActivity, activity
from saccade.models._weights import LoadReport, load_weights, save_weights
from saccade.models.medvitv2 import MedViTV2, MedViTV2Config

__all__ = [
    "Activity",
    "Classifier",
    "DefaultCfg",
    "FeatureExtractor",
    "FeatureInfo",
    "LayerActivity",
    "LoadReport",
    "MedViTV2",
    "MedViTV2Config",
    "activity",
    "cnn_svm",
    "create_model",
    "cvt",
    "davit",
    "default_cfg",
    "inception",
    "is_model",
    "karat",
    "lightweight_cnn",
    "list_models",
    "load_model",
    "load_weights",
    "mamba_pkd",
    "max_former",
    "max_resnet",
    "medvitv2",
    "mixformer",
    "register_model",
    "save_weights",
]
