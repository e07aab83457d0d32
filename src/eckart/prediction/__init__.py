"""Does theory predict practice? What the probe reads off a clipped model, beside what clipping was measured to gain."""

from eckart.prediction.predictors import Predictor, predictors
from eckart.prediction.probing import Cell, Probing
from eckart.prediction.study import Prediction, predict

__all__ = ["Cell", "Prediction", "Predictor", "Probing", "predict", "predictors"]
