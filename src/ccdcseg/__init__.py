"""CCDC: class-confidence and confusion guided contrastive learning for segmentation with few labels.

The loss alone: :class:`ccdcseg.losses.CCDCLoss`. In nnU-Net: the trainers of :mod:`ccdcseg.nnunet`.
From scans to tables: the command ``ccdcseg``.
"""

__version__ = "0.1.0"
