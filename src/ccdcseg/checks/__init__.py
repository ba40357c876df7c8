"""``ccdcseg check``: what is in a raw folder, measured, and what is wrong or unusual in it."""
