"""Reading rows through a model: the plain way, padded, packed, and from the middle of the model
on."""
