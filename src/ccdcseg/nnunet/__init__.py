"""CCDC in nnU-Net: trainers, presets, plans, training and prediction. Only this package knows nnunetv2."""
