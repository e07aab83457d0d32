"""The statistics of gains: paired tests, crossed random effects, multiplicity, grids. Thin over
scipy; knows no model."""
