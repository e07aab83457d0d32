"""Every way out: a clipped model as files that others load."""
