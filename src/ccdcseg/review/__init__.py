"""Which masks to look at again: where label and model contradict each other."""
