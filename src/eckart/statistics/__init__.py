"""What numbers show: paired tests, crossed random effects, multiplicity, grids. Thin over scipy;
knows no model."""
