"""The ground of `eckart demo`: a small decoder that learns in context, and the corpus that it was
trained on."""

from pathlib import Path

MODEL = Path(__file__).parent / "model"
"""The embedded model: a plain transformers folder, trained by scripts/train_demo.py
(docs/demo-model.md)."""
