"""In-context functions (Appendix C.4): models that learn a function from points and values, and
clipping them."""
