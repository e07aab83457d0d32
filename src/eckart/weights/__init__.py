"""A model's weights: where they are, what they are known by, how they are factored and clipped."""
