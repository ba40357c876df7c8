"""CCDC: class-confidence and confusion guided contrastive learning for segmentation with few labels.

The loss alone: `CCDCLoss`. In nnU-Net: the trainers of `nnunet`.
From scans to tables: the command ``ccdcseg``.
"""

__version__ = "0.1.0"
