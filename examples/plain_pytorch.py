"""CCDC beside Dice and cross-entropy: any network that hands over its last features."""

import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet

from ccdcseg.losses import CCDCLoss, CombinedLoss

body = UNet(spatial_dims=2, in_channels=1, out_channels=16, channels=(16, 32, 64), strides=(2, 2))
layer = torch.nn.Conv2d(16, 4, 1)
criterion = CombinedLoss(DiceCELoss(to_onehot_y=True, softmax=True), CCDCLoss(in_channels=16, num_classes=4))
optimizer = torch.optim.Adam([*body.parameters(), *layer.parameters(), *criterion.parameters()], 1e-3)
label = torch.zeros(2, 1, 64, 64, dtype=torch.long)
label[:, :, 16:48, 16:40], label[:, :, 20:44, 30:52], label[:, :, 26:38, 36:48] = 1, 2, 3
for step in range(20):
    features = body(label + torch.randn(2, 1, 64, 64))
    loss = criterion(features, layer(features), label)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step}: {loss:.3f}")
