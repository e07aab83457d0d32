"""Does theory predict practice? What the probe reads off a clipped model, beside what clipping was
measured to gain."""

from eckart.paper.prediction.predictors import Predictor, predictors
from eckart.paper.prediction.probing import PredictedCell, ProbeOptions
from eckart.paper.prediction.study import Prediction, predict

__all__ = ["PredictedCell", "Prediction", "Predictor", "ProbeOptions", "predict", "predictors"]
