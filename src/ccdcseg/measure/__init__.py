"""How good is a segmentation? Overlap and surface distances of masks, and values of patients made of them.

The unit of every mean and interval is the patient. Every HD95 carries its definition in its name.
"""
